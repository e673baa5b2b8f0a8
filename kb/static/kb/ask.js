// The conversation: the composer, and answers that arrive while they are written.

const thread = document.getElementById("thread");
const composer = document.getElementById("composer");
const question = document.getElementById("question");
const send = composer.querySelector(".send");
const stop = composer.querySelector(".stop");
const LINES = 8;

// ---- The composer -----------------------------------------------------------------------------
function grow(box) {
  box.style.height = "auto";
  const lineHeight = parseFloat(getComputedStyle(box).lineHeight);
  box.style.height = `${Math.min(box.scrollHeight, LINES * lineHeight + 24)}px`;
}

document.addEventListener("input", (event) => {
  if (event.target === question || event.target.matches("[data-grows]")) grow(event.target);
});
grow(question);

document.addEventListener("keydown", (event) => {
  const box = event.target;
  if (!box.matches("textarea[name=text]") || event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    if (box.value.trim() && !(box === question && send.hidden)) box.form.requestSubmit();
  }
  if (event.key === "Escape" && box !== question) {
    box.form.querySelector("button[hx-get]").click();
  }
});

composer.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target === composer) send.disabled = true;
});
composer.addEventListener("htmx:afterRequest", (event) => {
  if (event.target !== composer) return;
  send.disabled = false;
  if (event.detail.successful) {
    question.value = "";
    grow(question);
    question.focus();
  }
});

for (const example of document.querySelectorAll("[data-example]")) {
  example.addEventListener("click", () => {
    question.value = example.textContent.trim();
    composer.requestSubmit();
  });
}

// The chips say what is chosen.
composer.addEventListener("change", () => {
  const collections = composer.querySelector('[data-chip="collections"]');
  const filters = composer.querySelector('[data-chip="filters"]');
  if (!collections) return;
  const chosen = [...composer.querySelectorAll('input[name="collection"]:checked')];
  const label =
    chosen.length === 0
      ? collections.dataset.none
      : chosen.length === 1
        ? chosen[0].dataset.label
        : `${chosen.length} ${collections.dataset.many}`;
  collections.querySelector(".chip-text").textContent = label;
  collections.classList.toggle("on", chosen.length > 0);
  const count =
    composer.querySelectorAll('input[name="type"]:checked').length +
    ["tag", "since", "until"].filter((name) => composer.elements[name].value).length;
  filters.querySelector(".chip-count").textContent = count || "";
  filters.classList.toggle("on", count > 0);
});

// ---- Answers on their way ---------------------------------------------------------------------
let following = 0;

function follow(answer) {
  const text = answer.querySelector("[data-text]");
  const status = answer.querySelector(".status-text");
  const events = new EventSource(answer.dataset.stream);
  let said = "";
  setFollowing(answer, +1);

  events.addEventListener("status", (event) => {
    status.textContent = status.dataset[JSON.parse(event.data).state] ?? "";
  });
  events.addEventListener("text", (event) => {
    said += JSON.parse(event.data).text;
    keepAtEnd(() => (text.textContent = said)); // textContent: nothing is read as HTML here
  });
  events.addEventListener("end", async () => {
    events.close();
    setFollowing(answer, -1);
    const had = answer.contains(document.activeElement);
    await htmx.ajax("GET", answer.dataset.fragment, { target: answer, swap: "outerHTML" });
    if (had) question.focus();
    keepAtEnd(() => {});
  });
  events.onerror = () => {
    // The browser tries again by itself, from the last event it has, unless it was refused.
    status.textContent = status.dataset.lost;
    if (events.readyState === EventSource.CLOSED) {
      setFollowing(answer, -1);
      setTimeout(() => htmx.ajax("GET", answer.dataset.fragment, { target: answer, swap: "outerHTML" }), 3000);
    }
  };
}

// Follow the text as it grows, unless the reader has scrolled up.
function keepAtEnd(change) {
  const page = document.scrollingElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 120;
  change();
  if (atEnd) page.scrollTop = page.scrollHeight;
}

function setFollowing(answer, step) {
  following = Math.max(0, following + step);
  if (following) stop.dataset.address = answer.dataset.stop;
  send.hidden = following > 0;
  stop.hidden = following === 0;
}

stop.addEventListener("click", async () => {
  stop.disabled = true;
  await htmx.ajax("POST", stop.dataset.address, { swap: "none" });
  stop.disabled = false;
});

function followAll(within) {
  const answers = within.matches?.("[data-stream]") ? [within] : within.querySelectorAll("[data-stream]");
  for (const answer of answers) {
    if (answer.dataset.followed) continue;
    answer.dataset.followed = "yes";
    follow(answer);
  }
}

if (thread) {
  followAll(thread);
  thread.addEventListener("htmx:afterSwap", () => {
    followAll(thread);
    for (const box of thread.querySelectorAll("[data-grows]")) grow(box);
  });
  thread.addEventListener("htmx:load", (event) => {
    if (event.target.matches(".question")) event.target.scrollIntoView({ block: "start" });
  });
  if (!location.hash) document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful && event.target.matches?.("[data-closes-dialog]")) {
    event.target.closest("dialog")?.close();
  }
});
