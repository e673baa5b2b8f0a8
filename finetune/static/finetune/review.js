// The review page: judge a pair with one key, the next one is here already.
// A judgement is sent while the next pair is shown; undo takes it back.
import { isTyping, openDialog, toast } from "../kb/app.js";
import { drawDifference } from "./difference.js";

const root = document.getElementById("review");
const stage = root.querySelector("[data-stage]");
const bar = root.querySelector("[data-bar]");
const reasons = document.getElementById("review-reasons");
const own = reasons.querySelector("[data-own-reason]");
const csrf = document.querySelector('meta[name="csrf-token"]').content;
const KEEP_MS = 4 * 60 * 1000; // well within the ten minutes for which a pair is ours

const ahead = []; // pairs that are ours and not shown yet, the next one first
let fetching = null;
let shownAt = performance.now();
const underway = new Set(); // judgements that the server has not answered

const current = () => stage.querySelector("[data-pair]");
const button = (name) => bar.querySelector(`[data-do="${name}"]`);
const form = () => current()?.querySelector("[data-edit]");

async function post(address, values = {}) {
  const body = new URLSearchParams(values);
  const headers = { "X-CSRFToken": csrf, "HX-Request": "true" };
  const answer = await fetch(address, { method: "POST", body, headers });
  if (answer.redirected) location.reload(); // the session has ended
  return answer;
}

function read(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content.querySelector("[data-pair]");
}

async function claimed(address, values) {
  const answer = await post(address, values);
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.status === 204 ? null : read(await answer.text());
}

function fetchAhead() {
  fetching ??= claimed(root.dataset.next)
    .then((pair) => pair && ahead.push(pair))
    .catch(() => toast(document.documentElement.dataset.offline))
    .finally(() => (fetching = null));
  return fetching;
}

function show(pair) {
  closeReasons();
  stage.replaceChildren(...(pair ? [pair] : []));
  bar.hidden = !pair;
  root.querySelector("[data-done]").hidden = Boolean(pair);
  button("edit").setAttribute("aria-expanded", "false");
  shownAt = performance.now();
  const address = new URL(location.href);
  if (pair) address.searchParams.set("pair", pair.dataset.pair);
  else address.searchParams.delete("pair");
  history.replaceState(null, "", address); // loading again shows the same pair
  if (!pair) return;
  window.scrollTo({ top: Math.min(scrollY, root.offsetTop) });
  pair.focus({ preventScroll: true });
}

async function showNext() {
  if (!ahead.length) await fetchAhead();
  show(ahead.shift() ?? null);
  if (current()) fetchAhead();
}

function say(sentence) {
  root.querySelector("[data-said]").textContent = sentence;
}

async function judge(values) {
  const pair = current();
  if (!pair) return;
  const seconds = Math.round((performance.now() - shownAt) / 1000);
  const sent = send(pair, { ...values, seconds });
  underway.add(sent);
  sent.finally(() => underway.delete(sent));
  say(values.verdict === "approve" ? root.dataset.accepted : root.dataset.rejected);
  await showNext();
}

async function send(pair, values) {
  try {
    const answer = await post(pair.dataset.judge, values);
    const text = await answer.text();
    if (answer.ok) root.querySelector("[data-progress]").outerHTML = text;
    else refused(pair, answer.status === 409 ? text : document.documentElement.dataset.failed);
  } catch {
    refused(pair, document.documentElement.dataset.offline);
  }
}

// What could not be saved is shown again, with its edit.
function refused(pair, sentence) {
  toast(sentence);
  const shown = current();
  if (shown) ahead.unshift(shown);
  show(pair);
}

// ---- Editing --------------------------------------------------------------------------------------
function openEdit() {
  const pair = current();
  if (!form().hidden) return closeEdit();
  pair.querySelector("[data-text]").hidden = true;
  form().hidden = false;
  button("edit").setAttribute("aria-expanded", "true");
  for (const area of form().querySelectorAll("textarea")) grow(area);
  const main = form().querySelector("[data-main]");
  main.focus();
  main.setSelectionRange(main.value.length, main.value.length);
}

function closeEdit() {
  form().reset();
  form().hidden = true;
  form().querySelector("[data-difference]").hidden = true;
  current().querySelector("[data-text]").hidden = false;
  button("edit").setAttribute("aria-expanded", "false");
  current().focus({ preventScroll: true });
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight * 0.6)}px`;
}

const changed = () => [...form().querySelectorAll("textarea")].filter((area) => area.value !== area.defaultValue);

function accept() {
  const values = { verdict: "approve" };
  if (form() && !form().hidden) for (const area of changed()) values[area.name] = area.value;
  judge(values);
}

let drawing = 0;
stage.addEventListener("input", (event) => {
  if (!event.target.matches("textarea")) return;
  grow(event.target);
  clearTimeout(drawing);
  drawing = setTimeout(() => {
    const box = form()?.querySelector("[data-difference]");
    if (!box) return;
    box.hidden = !changed().length;
    box.querySelector(".text").replaceChildren(...changed().flatMap((area) => drawDifference(area.defaultValue, area.value)));
  }, 120);
});
stage.addEventListener("submit", (event) => {
  event.preventDefault();
  accept();
});

// ---- Rejecting ------------------------------------------------------------------------------------
function openReasons() {
  if (!reasons.hidden) return closeReasons();
  reasons.hidden = false;
  button("reject").setAttribute("aria-expanded", "true");
  reasons.querySelector("[data-reason]").focus();
}

function closeReasons() {
  reasons.hidden = true;
  own.reset();
  button("reject").setAttribute("aria-expanded", "false");
}

function rejectFor(reason) {
  if (reason.trim()) judge({ verdict: "reject", reason });
}

own.addEventListener("submit", (event) => {
  event.preventDefault();
  rejectFor(own.querySelector("input").value);
});

// ---- The rest -------------------------------------------------------------------------------------
async function skip() {
  const pair = current();
  if (!pair) return;
  say(root.dataset.skipped);
  const told = post(root.dataset.hold, { action: "skip", pair: pair.dataset.pair });
  underway.add(told);
  told.finally(() => underway.delete(told));
  await showNext();
}

async function undo() {
  await Promise.allSettled(underway);
  const pair = await claimed(root.dataset.undo);
  if (!pair) return toast(root.dataset.nothingUndo);
  const shown = current();
  if (shown && shown.dataset.pair !== pair.dataset.pair) ahead.unshift(shown);
  say(root.dataset.undone);
  show(pair);
}

async function similar() {
  const pair = current();
  if (!pair) return;
  await fetching;
  // What was taken in advance may be the most similar one.
  const given = ahead.splice(0).map((other) => ["pair", other.dataset.pair]);
  if (given.length) await post(root.dataset.hold, [["action", "release"], ...given]);
  const found = await claimed(root.dataset.next, { like: pair.dataset.pair });
  if (!found) {
    fetchAhead();
    return toast(root.dataset.nothingSimilar);
  }
  ahead.unshift(pair);
  show(found);
}

const actions = { accept, edit: openEdit, cancel: closeEdit, reject: openReasons, skip, undo, similar };
let busy = false; // one key, one judgement: a key held down does not judge unseen pairs

root.addEventListener("click", async (event) => {
  const reason = event.target.closest("[data-reason]");
  if (reason) return rejectFor(reason.dataset.reason);
  const name = event.target.closest("[data-do]")?.dataset.do;
  if (!name || busy) return;
  busy = true;
  try {
    await actions[name]();
  } catch {
    toast(document.documentElement.dataset.failed);
  } finally {
    busy = false;
  }
});

document.addEventListener(
  "keydown",
  (event) => {
    if (document.querySelector("dialog:modal")) return;
    const editing = form() && !form().hidden;
    if (event.repeat && !isTyping(event.target)) return event.stopImmediatePropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && editing) {
      event.preventDefault();
      return accept();
    }
    if (event.key === "Escape" && !reasons.hidden) {
      closeReasons();
      return current()?.focus({ preventScroll: true });
    }
    if (event.key === "Escape" && editing) return closeEdit();
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (localStorage.getItem("single-keys") === "off") return;
    if (event.key === "?") {
      event.stopImmediatePropagation();
      event.preventDefault();
      return openDialog(document.getElementById("review-keys"));
    }
    const picked = !reasons.hidden && reasons.querySelectorAll("[data-reason]")[Number(event.key) - 1];
    if (picked) {
      event.preventDefault();
      picked.click();
    }
  },
  { capture: true },
);

// ---- Keeping and giving back ----------------------------------------------------------------------
const held = () => [current(), ...ahead].filter(Boolean).map((pair) => pair.dataset.pair);

function hold(action) {
  const values = new URLSearchParams({ action, csrfmiddlewaretoken: csrf });
  for (const pair of held()) values.append("pair", pair);
  return values;
}

const keep = () => held().length && fetch(root.dataset.hold, { method: "POST", body: hold("keep") });
setInterval(keep, KEEP_MS);
setTimeout(keep, 2000); // after loading again, the page before may have given back what this one shows
addEventListener("pagehide", () => held().length && navigator.sendBeacon(root.dataset.hold, hold("release")));
// A page that comes back from the browser's memory holds nothing any more.
addEventListener("pageshow", (event) => event.persisted && location.reload());

if (current()) {
  show(current());
  fetchAhead();
}
