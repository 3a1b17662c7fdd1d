// Figures: those of runs that are shown, and animations, which move only when somebody asks.
"use strict";
(() => {
  const figures = [...document.querySelectorAll("[data-figure]")];
  let films = null;

  function set(button, plays) {
    const img = button.closest("figure").querySelector("img");
    films ||= JSON.parse(report.byId("films").textContent);
    button.still ||= img.getAttribute("src");
    img.src = plays ? films[button.dataset.film] : button.still;
    button.setAttribute("aria-pressed", plays);
    report.say(button.firstElementChild, plays ? "stop" : "play");
  }

  const buttons = [...document.querySelectorAll(".play")];
  for (const button of buttons)
    button.addEventListener("click", () => set(button, button.getAttribute("aria-pressed") !== "true"));
  addEventListener("beforeprint", () => { for (const button of buttons) set(button, false); });

  report.on("runs", () => {
    for (const figure of figures) {
      const runs = figure.dataset.runs.split(" ").filter(Boolean).map(Number);
      figure.hidden = runs.length > 0 && !runs.some(report.isShown);
    }
  });
})();
