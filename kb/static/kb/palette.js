// The command palette: Ctrl K opens it, typing asks the server, arrows choose, Enter goes.
const palette = document.getElementById("palette");

if (palette) {
  const input = palette.querySelector("input");
  const list = palette.querySelector(".palette-list");

  const options = () => [...list.querySelectorAll('[role="option"]')];
  const chosen = () => list.querySelector('[aria-selected="true"]');

  const choose = (option) => {
    chosen()?.setAttribute("aria-selected", "false");
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  };

  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      if (palette.open) return palette.close();
      palette.showModal();
      input.select();
      htmx.trigger(input, "palette");
    }
  });

  list.addEventListener("htmx:afterSwap", () => choose(options()[0]));

  input.addEventListener("keydown", (event) => {
    const all = options();
    const at = all.indexOf(chosen());
    if (event.key === "ArrowDown") choose(all[(at + 1) % all.length]);
    else if (event.key === "ArrowUp") choose(all[(at - 1 + all.length) % all.length]);
    else if (event.key === "Enter") chosen()?.click();
    else return;
    event.preventDefault();
  });
}
