// The search page: keys through the hits, and the filters as a sheet on narrow screens.
import { isTyping } from "./app.js";
import { openSource } from "./source.js";

const form = document.getElementById("search-form");
const hits = () => [...document.querySelectorAll("[data-hit]")];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog:modal")) return;
  const down = event.key === "ArrowDown" || event.key === "j";
  const up = event.key === "ArrowUp" || event.key === "k";
  const inQuery = event.target.matches('input[type="search"]');
  if (!(down || up) || (isTyping(event.target) && !(inQuery && event.key === "ArrowDown"))) return;
  if (event.key.length === 1 && localStorage.getItem("single-keys") === "off") return;
  if (event.target.closest("#source, details.menu")) return;
  const all = hits();
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? 0 : Math.max(0, Math.min(all.length - 1, at + (down ? 1 : -1)))];
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.closest(".hit").scrollIntoView({ block: "nearest" });
  // With the panel open, the source follows the hit; the focus stays in the list.
  if (document.getElementById("source").open) {
    openSource(next).then((open) => open && next.focus());
  }
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-facets]")) {
    const open = document.body.classList.toggle("facets-shown");
    if (open) document.querySelector("#facets input, #facets button")?.focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.body.classList.remove("facets-shown");
});

form.addEventListener("htmx:afterSwap", () => {
  document.title = document.getElementById("results").dataset.title;
});
