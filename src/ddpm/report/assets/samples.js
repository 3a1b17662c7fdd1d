// Grids of samples: one slider over the steps of all runs.
"use strict";
if (report.byId("grids")) (() => {
  const { data, byId } = report;
  const steps = [...new Set(data.steps.flat())].sort((a, b) => a - b);
  const slider = byId("step");
  const isSeveral = data.runs.length > 1;
  slider.max = steps.length - 1;
  slider.value = steps.length - 1;

  const grids = [...document.querySelectorAll("#grids figure")].map((figure) => {
    const run = Number(figure.dataset.run);
    const img = figure.querySelector("img");
    const last = [img.getAttribute("src"), img.width, img.height, Number(img.dataset.row)];
    return { figure, run, img, box: figure.querySelector(".window"), drawn: figure.querySelector(".drawn"), last: { [img.dataset.step]: last }, own: data.steps[run], pictures: null, at: Number(img.dataset.step), isNear: true };
  });

  // The pictures of a run are read when they are first asked for.
  function picture(grid, step) {
    grid.pictures ||= { ...JSON.parse(byId(`grids-${grid.run}`).textContent), ...grid.last };
    return grid.pictures[step];
  }

  function show(grid, step) {
    if (grid.at === step && grid.asked === step) return;
    const own = grid.own.filter((one) => one <= step).at(-1);
    grid.asked = step;
    grid.box.classList.toggle("empty", own === undefined);
    if (own === undefined) {
      grid.at = null;
      report.say(grid.drawn, "no_grid_yet");
      return;
    }
    report.say(grid.drawn, own === step ? "drawn_at" : "earlier_step", { step: own });
    if (grid.at === own) return;
    const [uri, width, height, row] = picture(grid, own);
    grid.at = own;
    grid.img.src = uri;
    grid.img.width = width;
    grid.img.height = height;
    for (const [name, value] of [["width", width], ["height", height], ["row", row]]) grid.box.style.setProperty(`--${name}`, value);
    report.sayAttribute(grid.img, "alt", "grid_of", { name: data.runs[grid.run], step: own });
  }

  const update = () => {
    const step = steps[Number(slider.value)];
    for (const grid of grids) if (grid.isNear) show(grid, step);
  };
  const asked = report.once(update);
  function move() {
    const step = steps[Number(slider.value)];
    report.say(byId("step-value"), "drawn_at", { step });
    report.sayAttribute(slider, "aria-valuetext", "drawn_at", { step });
    byId("previous").disabled = slider.value === slider.min;
    byId("next").disabled = slider.value === slider.max;
    asked();
  }
  function go(by) {
    slider.value = Number(slider.value) + by;
    move();
  }

  const observer = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) grids.find((grid) => grid.figure === target).isNear = isIntersecting;
    asked();
  }, { rootMargin: "400px" });
  grids.forEach((grid) => observer.observe(grid.figure));
  addEventListener("beforeprint", () => { for (const grid of grids) show(grid, steps[Number(slider.value)]); });

  slider.addEventListener("input", move);
  byId("previous").addEventListener("click", () => go(-1));
  byId("next").addEventListener("click", () => go(1));
  if (isSeveral) byId("whole-grids").addEventListener("change", (event) => byId("grids").classList.toggle("whole", event.target.checked));
  report.on("runs", () => { for (const grid of grids) grid.figure.hidden = !report.isShown(grid.run); });
  move();
})();
