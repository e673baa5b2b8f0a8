// The source panel on the right (a sheet on narrow screens), and the cards over citations.
import { isTyping } from "./app.js";

const panel = document.getElementById("source");
const content = document.getElementById("source-content");
const card = document.getElementById("hover-card");
document.getElementById("main").append(card); // what a landmark holds is found by screen readers
const narrow = matchMedia("(max-width: 60rem)");

// ---- The panel --------------------------------------------------------------------------------
let opener = null;
let chosen = null;

// Citations step through those of their answer, hits through those of their list.
function steps(link) {
  const hits = link.closest("#hits");
  if (hits) return [...hits.querySelectorAll("[data-hit]")];
  const answer = link.closest(".answer");
  if (!answer) return [link];
  const listed = [...answer.querySelectorAll(".cited a[data-source]")];
  return listed.length ? listed : [link];
}

const sameSource = (link, other) => link.href === other?.href;

// Resolves to whether the panel is still open, so that the focus may go into it.
export async function openSource(link) {
  if (!panel.open) opener = link;
  chosen = link;
  const all = steps(link);
  const at = all.findIndex((other) => sameSource(other, link));
  const nav = panel.querySelector(".source-nav");
  nav.hidden = all.length < 2;
  nav.querySelector(".source-at").textContent = `${at + 1} / ${all.length}`;
  nav.querySelector('[data-step="-1"]').disabled = at <= 0;
  nav.querySelector('[data-step="1"]').disabled = at >= all.length - 1;
  panel.querySelector(".source-full").href = link.href;
  for (const other of document.querySelectorAll("[data-source].is-open")) other.classList.remove("is-open");
  for (const other of document.querySelectorAll("[data-source]")) {
    if (sameSource(other, link)) other.classList.add("is-open");
  }
  hideCard();
  if (!panel.open) narrow.matches ? panel.showModal() : panel.show();
  document.body.classList.add("source-open");
  await htmx.ajax("GET", link.href, { target: content, swap: "innerHTML show:none" });
  if (!panel.open) return false;
  showPassage();
  content.focus({ preventScroll: true });
  return true;
}

function showPassage() {
  const passage = content.querySelector(".said") ?? content.querySelector("rect.box, mark");
  if (passage) passage.scrollIntoView({ block: "center" });
  else content.scrollTop = 0;
}

function closeSource() {
  panel.close();
}

panel.addEventListener("close", () => {
  document.body.classList.remove("source-open");
  for (const link of document.querySelectorAll("[data-source].is-open")) link.classList.remove("is-open");
  // This event comes a moment later: who writes in a field by then stays there.
  if (isTyping(document.activeElement)) return;
  (opener?.isConnected ? opener : document.getElementById("main")).focus();
});
content.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.requestConfig?.elt?.matches?.("[data-keeps-place]")) showPassage();
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-source]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    link.closest("dialog:not(#source)")?.close();
    openSource(link);
    return;
  }
  const step = event.target.closest("[data-step]");
  if (step && chosen) {
    const all = steps(chosen);
    const at = all.findIndex((other) => sameSource(other, chosen));
    const next = all[at + Number(step.dataset.step)];
    if (next) openSource(next).then((open) => open && step.focus());
  }
  if (event.target.closest("[data-close-source]")) closeSource();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !panel.open || panel.matches(":modal")) return;
  if (document.querySelector("dialog:modal, details.menu[open]")) return;
  closeSource();
});

// ---- Cards over citations and doubtful sentences ----------------------------------------------
const WAIT_MS = 140;
let timer = 0;

function cardFor(target) {
  const answer = target.closest(".answer");
  if (target.matches("[data-marker]")) {
    return answer?.querySelector(`.cited li[data-marker="${target.dataset.marker}"] template`);
  }
  return document.getElementById("doubt-card");
}

function showCard(target) {
  const template = cardFor(target);
  if (!template) return;
  card.replaceChildren(template.content.cloneNode(true));
  card.hidden = false;
  const at = target.getClientRects()[0];
  const { width, height } = card.getBoundingClientRect();
  const left = Math.max(12, Math.min(at.left - 16, innerWidth - width - 12));
  const above = at.top - height - 8;
  card.style.left = `${left}px`;
  card.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  target.setAttribute("aria-describedby", "hover-card");
}

function hideCard() {
  clearTimeout(timer);
  card.hidden = true;
  document.querySelector('[aria-describedby="hover-card"]')?.removeAttribute("aria-describedby");
}

const hoverable = (event) => event.target.closest?.("a[data-marker], .doubted, [data-doubt]");

document.addEventListener("mouseover", (event) => {
  const target = hoverable(event);
  if (!target) return;
  clearTimeout(timer);
  timer = setTimeout(() => showCard(target), WAIT_MS);
});
document.addEventListener("mouseout", (event) => {
  if (hoverable(event) && !card.contains(event.relatedTarget)) hideCard();
});
card.addEventListener("mouseleave", hideCard);
document.addEventListener("focusin", (event) => {
  const target = hoverable(event);
  if (target && target.matches(":focus-visible")) showCard(target);
});
document.addEventListener("focusout", (event) => hoverable(event) && hideCard());
document.addEventListener("click", (event) => {
  const doubt = event.target.closest("[data-doubt]");
  if (doubt) showCard(doubt);
});
document.addEventListener("keydown", (event) => event.key === "Escape" && hideCard());
document.addEventListener("scroll", hideCard, { passive: true, capture: true });

// A page that cannot be drawn gives way to its words. Errors of images do not bubble.
document.addEventListener(
  "error",
  (event) => {
    const figure = event.target.closest?.(".drawn-page");
    const words = figure?.parentElement.querySelector(".as-text");
    if (!words) return;
    figure.remove();
    words.open = true;
  },
  true,
);
