// The list of pairs: choose some of them, or all that match the filter.
const form = document.getElementById("selection");
const boxes = () => [...form.querySelectorAll('input[name="pair"]')];
const part = (name) => form.querySelector(`[data-${name}]`);

function draw() {
  const chosen = boxes().filter((box) => box.checked);
  const whole = part("whole").value === "1";
  part("selection").hidden = !chosen.length;
  part("selected-count").textContent = whole ? "" : chosen.length;
  part("whole-said").hidden = !whole;
  part("select-whole").hidden = whole || chosen.length < boxes().length || !form.querySelector(".more");
  const head = part("select-all");
  head.checked = chosen.length > 0 && chosen.length === boxes().length;
  head.indeterminate = chosen.length > 0 && !head.checked;
  for (const box of boxes()) box.closest("tr").setAttribute("aria-selected", String(box.checked));
}

form?.addEventListener("change", (event) => {
  if (event.target.matches("[data-select-all]")) for (const box of boxes()) box.checked = event.target.checked;
  part("whole").value = "";
  draw();
});
form?.addEventListener("click", (event) => {
  if (event.target.closest("[data-select-whole]")) part("whole").value = "1";
  else if (event.target.closest("[data-clear-selection]")) {
    for (const box of boxes()) box.checked = false;
    part("whole").value = "";
  } else return;
  draw();
});
form?.addEventListener("htmx:afterSettle", draw);

for (const select of document.querySelectorAll("[data-filters] select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
