// Links and buttons with data-in-dialog open their page in a dialog. Without a script, or with
// Ctrl held, they open it as the page that it also is.
import { openDialog } from "./app.js";

const dialog = document.getElementById("dialog");

async function openPage(address) {
  await htmx.ajax("GET", address, { target: dialog, swap: "innerHTML" });
  if (dialog.childElementCount) openDialog(dialog);
}

function addressOf(trigger) {
  if (trigger.href) return trigger.href;
  const form = trigger.form; // a button of a form with method "get": its fields are the question
  const address = new URL(trigger.getAttribute("formaction") ?? form.action, location.href);
  address.search = new URLSearchParams(new FormData(form));
  return address.href;
}

document.addEventListener("click", (event) => {
  const trigger = event.target.closest("[data-in-dialog]");
  if (!trigger || !dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  openPage(addressOf(trigger));
});

dialog?.addEventListener("close", () => dialog.replaceChildren());
