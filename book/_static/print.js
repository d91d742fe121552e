// Paper is white: print in light colours, whatever the screen shows.
(() => {
  "use strict";
  const root = document.documentElement;
  let shown;
  addEventListener("beforeprint", () => { shown = root.dataset.theme; root.dataset.theme = "light"; });
  addEventListener("afterprint", () => { root.dataset.theme = shown; });
  // The theme gives a tab stop to code that scrolls when a page is loaded or resized: folds open later.
  const again = (e) => {
    if (e.type === "toggle" || e.target.closest(".admonition-title")) dispatchEvent(new Event("resize"));
  };
  for (const kind of ["toggle", "click"]) document.addEventListener(kind, again, true);
})();
