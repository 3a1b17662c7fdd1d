// What came of what: settings that differ against a result, as parallel coordinates or one against it.
"use strict";
if (report.byId("results")) (() => {
  const { data, byId, charts } = report;
  const settings = data.columns.filter((column) => column.kind === "setting");
  const results = data.columns.filter((column) =>
    ["result", "time"].includes(column.kind) && column.cells.some((cell) => cell.number !== null));
  if (!results.length || !settings.length) {
    byId("no-results").hidden = false;
    byId("results-shown").hidden = true;
    return;
  }

  const heading = (column) => (column.text_key ? report.text(column.text_key, { name: column.about }) : column.key);
  function fill(select, columns) {
    select.replaceChildren(...columns.map((column, i) => {
      const option = new Option(column.key, i);
      if (column.text_key) report.say(option, column.text_key, { name: column.about });
      return option;
    }));
  }
  fill(byId("result"), results);
  fill(byId("setting"), settings);
  byId("view").value = settings.length > 1 ? "parallel" : "scatter";

  const isNumeric = (column, runs) => runs.every((run) => column.cells[run].number !== null);

  function axis(column, runs) {
    const label = charts.plain(charts.short(heading(column), 28));
    if (isNumeric(column, runs)) {
      const values = runs.map((run) => column.cells[run].number);
      const distinct = [...new Set(values)].sort((a, b) => a - b);
      if (column.kind !== "setting" || distinct.length > 12) return { label, values, tickformat: ".4~g" };
      // few values stand at equal distances: 1e-4, 1e-3 and 1e-2 would else lie on each other
      return { label, values: values.map((value) => distinct.indexOf(value)), tickvals: distinct.map((_, i) => i), ticktext: distinct.map(String), range: [-0.1, Math.max(1, distinct.length - 1) + 0.1] };
    }
    const texts = [...new Set(runs.map((run) => column.cells[run].text))].sort();
    return {
      label, values: runs.map((run) => texts.indexOf(column.cells[run].text)), tickvals: texts.map((_, i) => i),
      ticktext: texts.map((text) => charts.plain(charts.short(text, 18))), range: [-0.1, Math.max(1, texts.length - 1) + 0.1],
    };
  }

  function parallel(runs, result) {
    const others = results.filter((column) => column !== result && column.kind === "result" && isNumeric(column, runs)).slice(0, 4);
    const values = runs.map((run) => result.cells[run].number);
    const style = getComputedStyle(document.documentElement);
    return {
      traces: [{
        type: "parcoords", dimensions: [...settings.slice(0, 8), result, ...others].map((column) => axis(column, runs)),
        line: { color: values, colorscale: "Viridis", showscale: true, colorbar: { thickness: 12, tickformat: ".3~g" } },
        labelside: "top", labelangle: settings.length > 3 ? -12 : 0, tickfont: { color: style.getPropertyValue("--text").trim() },
        unselected: { line: { color: style.getPropertyValue("--line").trim(), opacity: 0.4 } },
      }],
      layout: { margin: { l: 70, r: 70, t: 76, b: 24 } },
    };
  }

  function scatter(runs, result, setting) {
    const cells = runs.map((run) => result.cells[run]);
    const numeric = isNumeric(setting, runs);
    const hasEnds = cells.some((cell) => cell.low !== null);
    const order = [...runs.keys()].sort((a, b) => numeric ? setting.cells[runs[a]].number - setting.cells[runs[b]].number : 0);
    const pick = (values) => order.map((i) => values[i]);
    return {
      traces: [{
        type: "scatter", mode: "markers", x: pick(runs.map((run) => (numeric ? setting.cells[run].number : charts.plain(charts.short(setting.cells[run].text, 30))))),
        y: pick(cells.map((cell) => cell.number)), text: pick(runs.map((run) => charts.plain(data.runs[run]))),
        marker: { size: 10, color: pick(runs.map(charts.colour)) }, hovertemplate: "%{x}: %{y:.5g}<extra>%{text}</extra>",
        ...(hasEnds && { error_y: {
          type: "data", symmetric: false, thickness: 1.3,
          array: pick(cells.map((cell) => (cell.high === null ? 0 : cell.high - cell.number))),
          arrayminus: pick(cells.map((cell) => (cell.low === null ? 0 : cell.number - cell.low))),
        } }),
      }],
      layout: {
        xaxis: { title: { text: charts.plain(setting.key) }, type: numeric ? "linear" : "category" },
        yaxis: { title: { text: charts.plain(heading(result)) } }, margin: { l: 70, r: 20, t: 20, b: 60 }, hovermode: "closest",
      },
    };
  }

  let drawn = "";
  charts.add(byId("results-chart"), () => {
    const result = results[Number(byId("result").value)];
    const runs = data.runs.map((_, run) => run).filter((run) => report.isShown(run) && result.cells[run].number !== null);
    const view = byId("view").value;
    byId("setting-label").hidden = view !== "scatter";
    report.sayAttribute(byId("results-chart"), "aria-label", "results_label", { name: result.key });
    if (drawn && drawn !== view) Plotly.purge(byId("results-chart")); // the two kinds share no axes
    drawn = view;
    if (!runs.length) return { traces: [], layout: {} };
    return view === "parallel" ? parallel(runs, result) : scatter(runs, result, settings[Number(byId("setting").value)]);
  });
  for (const id of ["result", "view", "setting"]) byId(id).addEventListener("change", charts.refresh);
})();
