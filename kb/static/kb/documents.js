// The list of documents: choose many, and add files by choosing or dropping them.
import { openDialog } from "./app.js";

const table = () => document.getElementById("document-table");

// One refresh at a time; what is asked for meanwhile is done once, afterwards.
let refreshing = null;
let isStale = false;
function refresh() {
  isStale = true;
  // What went wrong is said by app.js; the next refresh tries again.
  refreshing ??= refreshWhileStale()
    .catch(() => {})
    .finally(() => (refreshing = null));
  return refreshing;
}

async function refreshWhileStale() {
  while (isStale && table()) {
    isStale = false;
    const { address } = table().dataset;
    await htmx.ajax("GET", address, { target: table(), swap: "outerHTML" });
  }
}

// ---- Choosing rows ----------------------------------------------------------------------------
const boxes = () => [...document.querySelectorAll('#selection input[name="document"]')];

function showSelection() {
  const all = boxes();
  const chosen = all.filter((box) => box.checked);
  const bar = document.querySelector("[data-selection]");
  if (!bar) return;
  bar.hidden = chosen.length === 0;
  bar.querySelector("[data-selected-count]").textContent = chosen.length;
  bar.querySelector("[data-selected-failed]").hidden = !chosen.some((box) => "failed" in box.dataset);
  for (const box of all) box.closest("tr").ariaSelected = String(box.checked);
  const head = document.querySelector("[data-select-all]");
  if (head) {
    head.checked = chosen.length > 0 && chosen.length === all.length;
    head.indeterminate = chosen.length > 0 && chosen.length < all.length;
  }
}

let lastBox = null;
document.addEventListener("click", (event) => {
  const box = event.target;
  if (box.matches?.("[data-clear-selection]")) {
    for (const each of boxes()) each.checked = false;
    showSelection();
  }
  if (!box.matches?.('#selection input[name="document"]')) return;
  if (event.shiftKey && lastBox?.isConnected) {
    const all = boxes();
    const [from, to] = [all.indexOf(lastBox), all.indexOf(box)].sort((a, b) => a - b);
    for (const between of all.slice(from, to + 1)) between.checked = box.checked;
  }
  lastBox = box;
  showSelection();
});
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-select-all]")) return;
  for (const box of boxes()) box.checked = event.target.checked;
  showSelection();
});
document.addEventListener("htmx:afterSettle", showSelection);

// A row that is drawn again while it is read stays chosen, with its menu open and the focus in it.
const stops = (row) => [...row.querySelectorAll('a, button, summary, input:not([type="hidden"])')];
document.addEventListener("htmx:oobBeforeSwap", ({ detail: { target, fragment } }) => {
  const drawn = fragment.querySelector("tr");
  if (!drawn || !target.closest("#selection")) return;
  const [was, now] = [target, drawn].map((row) => row.querySelector('input[name="document"]'));
  if (was && now) now.checked = was.checked;
  drawn.querySelector("details.menu").open = target.querySelector("details.menu").open;
  const focused = stops(target).indexOf(document.activeElement);
  if (focused >= 0) setTimeout(() => stops(drawn)[focused]?.focus());
});

// ---- Adding files -----------------------------------------------------------------------------
const AT_ONCE = 3;
const REFRESH_EVERY_MS = 1500;
const form = document.querySelector("[data-add]");
const tray = document.getElementById("uploads");
if (form) startAdding();

function startAdding() {
  const dialog = form.closest("dialog");
  const files = document.getElementById("add-files");
  const folder = document.getElementById("add-folder");
  const shown = form.querySelector("[data-chosen-files]");
  const invitation = shown.textContent;
  const button = form.querySelector("[data-add-now]");
  let chosen = []; // { file, path }

  for (const part of form.querySelectorAll("[data-needs-script]")) part.hidden = false;
  button.disabled = true;
  files.required = false;

  const choose = (list) => {
    chosen = list;
    button.disabled = chosen.length === 0;
    const names = chosen.slice(0, 2).map(({ path }) => path.split("/").pop()).join(", ");
    const rest = chosen.length > 2 ? ` + ${chosen.length - 2}` : "";
    shown.textContent = chosen.length ? `${form.dataset.chosen} ${names}${rest}` : invitation;
  };
  const picked = (input) =>
    [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  const send = () => {
    const target = form.elements.collection;
    addFiles(chosen, target.value, form.elements.tags.value);
    dialog.close();
    form.reset();
    choose([]);
  };

  files.addEventListener("change", () => choose(picked(files)));
  folder.addEventListener("change", () => choose(picked(folder)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen.length) send();
  });

  // Dropping works on the whole page; with one collection to go to, nothing more is asked.
  const cover = document.querySelector("[data-drop-cover]");
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const cancel = () => {
    depth = 0;
    cover.hidden = true;
  };
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    cover.hidden = dialog.open;
    form.querySelector("[data-drop-zone]").classList.toggle("over", dialog.open);
  });
  document.addEventListener("dragleave", (event) => {
    if (carriesFiles(event) && --depth <= 0) cancel();
  });
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    cancel();
    form.querySelector("[data-drop-zone]").classList.remove("over");
    choose(await dropped(event.dataTransfer));
    if (dialog.open || !chosen.length) return;
    if (form.elements.collection.type === "hidden") send();
    else openDialog(dialog);
  });
}

async function dropped(transfer) {
  // Entries die with the event, so all are taken before anything is awaited.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  return (await Promise.all(entries.map(readEntry))).flat();
}

async function readEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return file.name.startsWith(".") ? [] : [{ file, path: entry.fullPath.slice(1) }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader gives at most a hundred entries at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(readEntry))).flat();
}

// ---- Sending ----------------------------------------------------------------------------------
const queue = [];
let counts = {};
let total = 0;
let finished = 0;
let busy = 0;
let stopped = false;
let pausedUntil = 0;
let lastRefresh = 0;
let failures = [];

function addFiles(list, collection, tags) {
  if (!busy && !queue.length) {
    counts = {};
    total = finished = 0;
    failures = [];
    part("problems").replaceChildren();
  }
  stopped = false;
  total += list.length;
  for (const { file, path } of list) queue.push({ file, path, collection, tags, tries: 0 });
  tray.hidden = false;
  for (let n = busy; n < Math.min(AT_ONCE, queue.length + busy); n += 1) work();
  show();
}

async function work() {
  busy += 1;
  while (queue.length && !stopped) {
    const wait = pausedUntil - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    const job = queue.shift();
    if (job) await sendOne(job);
    show();
  }
  if (busy === 1) await refresh(); // done means that the list shows it
  busy -= 1;
  show();
}

async function sendOne(job) {
  const { dataset } = form;
  if (job.file.size > Number(dataset.maxBytes)) return refuse(job, dataset.tooLarge);
  if (job.file.size === 0) return refuse(job, dataset.empty);
  const line = drawLine(job);
  const response = await post(job, (share) => (line.querySelector("progress").value = share * 100));
  line.remove();
  if (response?.status === 429) {
    pausedUntil = Date.now() + 1000 * Number(response.getResponseHeader("Retry-After") || 60);
    part("summary").textContent = tray.dataset.waiting;
    queue.unshift(job);
    return;
  }
  if (response?.status !== 200) {
    if ((job.tries += 1) < 3 && !stopped) return queue.unshift(job);
    failures.push(job);
    return refuse(job, [400, 413].includes(response?.status) ? response.responseText : tray.dataset.lost);
  }
  const result = document.createElement("template");
  result.innerHTML = response.responseText;
  const item = result.content.querySelector("[data-outcome]");
  finished += 1;
  counts[item.dataset.outcome] = (counts[item.dataset.outcome] ?? 0) + 1;
  if (item.dataset.outcome === "refused") part("problems").append(item);
  if (Date.now() - lastRefresh > REFRESH_EVERY_MS) {
    lastRefresh = Date.now();
    if (!boxes().some((box) => box.checked)) refresh();
  }
}

// XMLHttpRequest, because fetch cannot say how much of a file has been sent.
function post({ file, path, collection, tags }, onProgress) {
  const body = new FormData();
  for (const [name, value] of Object.entries({ collection, tags, path })) body.append(name, value);
  body.append("file", file, file.name);
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => resolve(request);
    request.onerror = request.onabort = () => resolve(null);
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("X-CSRFToken", document.querySelector('meta[name="csrf-token"]').content);
    request.send(body);
  });
}

function part(name) {
  return tray.querySelector(`[data-${name}]`);
}

function drawLine(job) {
  const line = document.getElementById("upload-template").content.firstElementChild.cloneNode(true);
  line.querySelector(".name").textContent = job.path;
  line.querySelector("progress").ariaLabel = job.path;
  part("current").append(line);
  return line;
}

function refuse(job, sentence) {
  const line = drawLine(job);
  line.querySelector("progress").remove();
  line.querySelector(".sentence").textContent = sentence;
  part("problems").append(line);
  finished += 1;
  counts.refused = (counts.refused ?? 0) + 1;
}

const fill = (template, ...values) => values.reduce((text, v, i) => text.replace(`%${i + 1}`, v), template);

function show() {
  const words = tray.dataset;
  const isBusy = busy > 0;
  part("title").textContent = isBusy ? fill(words.adding, finished, total) : stopped ? words.stopped : words.done;
  part("overall").value = total ? finished / total : 0;
  if (Date.now() >= pausedUntil) {
    part("summary").textContent = ["new", "new_version", "same", "refused"]
      .filter((outcome) => counts[outcome])
      .map((outcome) => fill(words[outcome], counts[outcome]))
      .join(" · ");
  }
  part("stop").hidden = !isBusy;
  part("close").hidden = isBusy;
  part("again").hidden = isBusy || !failures.length;
}

if (tray) {
  part("stop").addEventListener("click", () => {
    stopped = true;
    queue.length = 0;
    show();
  });
  part("close").addEventListener("click", () => (tray.hidden = true));
  part("again").addEventListener("click", () => {
    const again = failures.map((job) => ({ ...job, tries: 0 }));
    failures = [];
    for (const { collection, tags } of again.slice(0, 1)) addFiles(again, collection, tags);
  });
  window.addEventListener("beforeunload", (event) => busy && event.preventDefault());
}
