// What every page needs: menus, dialogs, the rail, the theme, shortcuts, toasts.
// No inline code anywhere: elements say what they do in data attributes.
import "./palette.js";

const root = document.documentElement;
const CSRF = () => document.querySelector('meta[name="csrf-token"]').content;

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = CSRF();
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.getResponseHeader("HX-Trigger")) return; // it says its own sentence
  const status = event.detail.xhr.status;
  toast(root.dataset[status === 429 ? "tooMany" : status === 403 ? "refused" : "failed"]);
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt: asker, verb } = event.detail.requestConfig;
  // Drawn anew since it asked: its successor asks again, and htmx would look for places inside it.
  if (verb === "get" && !asker.isConnected) event.detail.shouldSwap = false;
  // A session that has ended answers with the sign-in page; it is no part of this one.
  const answered = new URL(event.detail.xhr.responseURL || location.href);
  if (answered.pathname !== root.dataset.signIn) return;
  event.detail.shouldSwap = false;
  location.reload();
});
document.addEventListener("htmx:sendError", () => toast(root.dataset.offline));
// A fragment may ask for a sentence to be shown: HX-Trigger: {"toast": "Saved."}
document.addEventListener("toast", (event) => toast(event.detail.value));
// A wide table or long line of an answer is scrolled by keyboard, too, as those of documents are.
document.addEventListener("htmx:load", (event) => {
  for (const wide of event.target.querySelectorAll(".prose > table, .prose pre")) wide.tabIndex = 0;
});

export function remember(name, value) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax${secure}`;
}

export function toast(sentence) {
  if (!sentence) return;
  const shown = document.getElementById("toast-template").content.firstElementChild.cloneNode(true);
  shown.querySelector(".sentence").textContent = sentence;
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), 8000);
}

// ---- One listener for the small things --------------------------------------------------------
const actions = {
  "rail-toggle"() {
    const narrow = root.dataset.rail !== "narrow";
    root.dataset.rail = narrow ? "narrow" : "wide";
    remember("rail", root.dataset.rail);
  },
  "rail-open"() {
    document.body.classList.add("rail-open");
    document.querySelector(".rail a, .rail summary").focus();
  },
  "rail-close": closeRail,
  theme(button) {
    root.dataset.theme = button.dataset.value;
    remember("theme", button.dataset.value);
    for (const other of document.querySelectorAll('[data-action="theme"]')) {
      other.setAttribute("aria-checked", String(other === button));
    }
  },
  open(button) {
    openDialog(document.getElementById(button.dataset.dialog), button);
  },
  close(button) {
    button.closest("dialog").close();
  },
  dismiss(button) {
    button.closest("[data-dismissible]").remove();
  },
  async copy(button) {
    const source = button.dataset.copy ?? document.getElementById(button.dataset.from).innerText;
    await navigator.clipboard.writeText(source);
    toast(root.dataset.copied);
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button && button.dataset.action in actions) {
    actions[button.dataset.action](button);
  }
  closeMenus(event.target);
  if (event.target.matches("dialog.modal[open]")) event.target.close(); // the backdrop
});

export function openDialog(dialog, from) {
  for (const [name, value] of Object.entries(from?.dataset ?? {})) {
    const field = name.startsWith("fill") && dialog.querySelector(`[data-fill="${name.slice(4).toLowerCase()}"]`);
    if (!field) continue;
    if ("value" in field) field.value = value;
    else if (field.tagName === "FORM") field.action = value;
    else field.textContent = value;
  }
  dialog.showModal();
  dialog.querySelector("[autofocus]")?.focus();
}

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(except) || except.closest?.(".menu-item")) menu.open = false;
  }
}

function closeRail() {
  if (!document.body.classList.contains("rail-open")) return;
  document.body.classList.remove("rail-open");
  document.querySelector('[data-action="rail-open"]').focus();
}

document.addEventListener("keydown", (event) => {
  const menu = document.activeElement?.closest?.("details.menu[open]");
  if (event.key === "Escape") {
    closeRail();
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
      event.preventDefault();
    }
  }
  if (menu && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const items = [...menu.querySelectorAll(".menu-item")];
    const step = event.key === "ArrowDown" ? 1 : -1;
    const next = items.indexOf(document.activeElement) + step;
    items[(next + items.length) % items.length]?.focus();
    event.preventDefault();
  }
});

// ---- Forms ------------------------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.requestSubmit();
});

// ---- Single keys ------------------------------------------------------------------------------
export const keysAreOn = () => localStorage.getItem("single-keys") !== "off";
const switchBox = document.getElementById("single-keys");
if (switchBox) {
  switchBox.checked = keysAreOn();
  switchBox.addEventListener("change", () =>
    localStorage.setItem("single-keys", switchBox.checked ? "on" : "off"),
  );
}

export const isTyping = (target) =>
  target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);

let lead = "";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping(event.target) || document.querySelector("dialog:modal") || !keysAreOn()) return;
  const sequence = lead + event.key;
  lead = event.key === "g" ? "g" : "";
  if (lead) setTimeout(() => (lead = ""), 1000);
  const target = document.querySelector(`[data-key="${CSS.escape(sequence)}"]`);
  if (!target) return;
  event.preventDefault();
  if (isTyping(target)) target.focus();
  else target.click();
});
