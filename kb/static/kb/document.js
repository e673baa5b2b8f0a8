// A document's text and its passages stand side by side and follow each other.
const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
const behavior = reduced ? "instant" : "smooth";

const beside = () => document.querySelector("[data-beside]");
const spans = (number) => beside().querySelectorAll(`[data-text] [data-passage="${number}"]`);
const link = (number) => beside().querySelector(`[data-to-passage="${number}"]`);

let current = "";
let quietUntil = 0; // while a jump scrolls, what passes by is not followed

function show(number, { follow }) {
  if (number === current) return;
  for (const each of beside().querySelectorAll(".is-current")) each.classList.remove("is-current");
  current = number;
  for (const span of spans(number)) span.classList.add("is-current");
  const entry = link(number);
  if (!entry) return;
  entry.classList.add("is-current");
  if (follow) {
    const list = entry.closest("[data-passages]");
    const place = entry.offsetTop - list.clientHeight / 3;
    list.scrollTo({ top: place, behavior });
  }
}

document.addEventListener("click", (event) => {
  if (!beside() || event.ctrlKey || event.metaKey) return;
  const entry = event.target.closest("[data-to-passage]");
  if (entry) {
    event.preventDefault();
    const [first] = spans(entry.dataset.toPassage);
    quietUntil = Date.now() + 900;
    first?.scrollIntoView({ block: "center", behavior });
    show(entry.dataset.toPassage, { follow: false });
  }
  const span = event.target.closest("[data-text] [data-passage]");
  if (span && !getSelection().toString()) show(span.dataset.passage, { follow: true });
});

// What stands a third down the visible text is what is being read.
function readingNow() {
  const text = beside()?.querySelector("[data-text]");
  if (!text || Date.now() < quietUntil) return;
  const line = Math.max(text.getBoundingClientRect().top, 0) + innerHeight / 4;
  let found = null;
  for (const span of text.querySelectorAll("[data-passage]")) {
    if (span.getBoundingClientRect().top > line) break;
    found = span;
  }
  if (found) show(found.dataset.passage, { follow: true });
}

let waiting = false;
document.addEventListener(
  "scroll",
  (event) => {
    if (event.target.closest?.("[data-passages]") || waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      readingNow();
    });
  },
  { passive: true, capture: true },
);
