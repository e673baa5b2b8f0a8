// Duplicates by keyboard: J and K move between clusters, a number keeps that pair, A keeps all.
import { isTyping, keysAreOn } from "../kb/app.js";

const clusters = () => [...document.querySelectorAll("[data-cluster]")];
const current = () => document.activeElement?.closest?.("[data-cluster]");

function go(step) {
  const all = clusters();
  const place = all.indexOf(current());
  const next = all[place < 0 ? 0 : Math.min(Math.max(place + step, 0), all.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "center" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (!keysAreOn() || document.querySelector("dialog:modal")) return;
  const key = event.key.toLowerCase();
  if (key === "j" || key === "k") {
    go(key === "j" ? 1 : -1);
  } else {
    const pick = current()?.querySelector(`[data-pick="${CSS.escape(key)}"]`);
    if (!pick) return;
    pick.click();
  }
  event.preventDefault();
  event.stopPropagation();
});

// The drawn-again cluster takes the focus of the one it stands for.
document.addEventListener("htmx:afterSwap", (event) => {
  const { target } = event.detail;
  if (target.matches?.("[data-cluster]")) document.getElementById(target.id)?.focus();
});
