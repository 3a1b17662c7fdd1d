// What all charts share: colours, the looks of the page, and drawing only what is on the screen.
"use strict";
report.charts = (() => {
  const COLOURS = ["#3b7dd8", "#d9690f", "#1b9e77", "#c2418f", "#8a6fd1", "#a8810d", "#d64545", "#2398a8", "#748a25", "#8d6e63"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const ON_PAPER = 310; // pixels of a chart, of which two stand side by side
  const colour = (run) => COLOURS[run % COLOURS.length];
  const dash = (run) => DASHES[Math.floor(run / COLOURS.length) % DASHES.length];
  const STYLES = { solid: "solid", dot: "dotted", dash: "dashed", dashdot: "dashed", longdash: "dashed", longdashdot: "dotted" };

  for (const swatch of document.querySelectorAll(".swatch")) {
    const run = Number(swatch.dataset.run);
    swatch.style.setProperty("--own", colour(run));
    swatch.style.borderTopStyle = STYLES[dash(run)];
  }

  // Plotly takes some of HTML in texts, and %{...} in templates; a name may hold either, and means neither.
  const plain = (name) =>
    String(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%\u200b{");
  const short = (name, most = 40) => (name.length <= most ? name : `${name.slice(0, most - 15)}…${name.slice(-14)}`);

  function layout(own) {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: value("--line"), zerolinecolor: value("--line"), linecolor: value("--line"), automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { color: value("--text"), size: 12, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 52, r: 12, t: 12, b: 36 },
      hoverlabel: { bgcolor: value("--raised"), bordercolor: value("--line"), font: { color: value("--text") }, namelength: -1 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: value("--quiet"), activecolor: value("--accent") },
      ...own, xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
    };
  }
  const config = {
    responsive: true, displaylogo: false, displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], // none that sends data anywhere
  };

  // A chart is drawn when it comes near the screen, and drawn again when it is there and out of date.
  const all = [];
  const observer = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const chart = all.find((one) => one.element === target);
      chart.isNear = isIntersecting;
      if (isIntersecting && chart.isStale) draw(chart);
    }
  }, { rootMargin: "300px" });
  let hasBegun = false;
  function draw(chart, width = null) {
    if (!hasBegun) return;
    chart.isStale = false;
    const { traces, layout: own } = chart.content();
    // paper is narrower than a screen, and a chart does not shrink with it
    const printed = width === null ? {} : { width: chart.element.classList.contains("tall") ? 2 * width : width };
    Plotly.react(chart.element, traces, { ...layout(own), autosize: true, ...printed }, config);
  }
  function add(element, content) {
    const chart = { element, content, isStale: true, isNear: false };
    all.push(chart);
    observer.observe(element);
    return chart;
  }
  const refresh = report.once(() => {
    for (const chart of all) { chart.isStale = true; if (chart.isNear) draw(chart); }
  });
  for (const event of ["theme", "language", "runs"]) report.on(event, refresh);

  addEventListener("beforeprint", () => {
    document.querySelectorAll("details.print").forEach((one) => { one.open = true; });
    document.documentElement.dataset.before ||= document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    for (const chart of all) draw(chart, ON_PAPER);
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = document.documentElement.dataset.before;
    delete document.documentElement.dataset.before;
    refresh();
  });

  // plotly.js takes a browser a second: it is run when the page stands, and can be read and used.
  function begin() {
    const script = document.createElement("script");
    script.textContent = report.byId("plotly").textContent;
    document.head.append(script);
    hasBegun = true;
    refresh();
  }
  addEventListener("load", () => setTimeout(begin, 50));

  return { add, refresh, colour, dash, plain, short };
})();
