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
  byId("view").value = settings.length > 1 && innerWidth > 640 ? "parallel" : "scatter";

  const isNumeric = (column, runs) => runs.every((run) => column.cells[run].number !== null);

  // Where the runs lie on an axis, from 0 to 1, and what is written beside it.
  function axis(column, runs) {
    const cells = runs.map((run) => column.cells[run]);
    const numeric = isNumeric(column, runs);
    if (numeric && column.kind !== "setting") {
      const values = cells.map((cell) => cell.number);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const place = (value) => (high > low ? (value - low) / (high - low) : 0.5);
      const ticks = high > low ? [0, 0.25, 0.5, 0.75, 1].map((at) => [at, number(low + at * (high - low))]) : [[0.5, number(low)]];
      return { places: values.map(place), ticks };
    }
    // the values of a setting stand at equal distances: 1e-4, 1e-3 and 1e-2 would else lie on each other
    const order = (a, b) => (numeric ? a.number - b.number : a.text.localeCompare(b.text));
    const texts = [...new Set([...cells].sort(order).map((cell) => cell.text))];
    const place = (text) => (texts.length > 1 ? texts.indexOf(text) / (texts.length - 1) : 0.5);
    return { places: cells.map((cell) => place(cell.text)), ticks: texts.map((text) => [place(text), charts.short(text, 20)]) };
  }
  const NARROWEST = 95, LETTER = 7; // pixels
  const cut = (line, most) => (line.length <= most ? line : `${line.slice(0, most - 1)}…`);
  const number = (value) => String(Number(value.toPrecision(4)));

  // From the lowest result to the highest; readable on white and on black, and for all kinds of colour vision.
  const SCALE = [[59, 90, 170], [38, 140, 150], [90, 160, 70], [200, 150, 20], [215, 80, 40]];
  function shade(at) {
    const place = at * (SCALE.length - 1), i = Math.min(SCALE.length - 2, Math.floor(place));
    return `rgb(${SCALE[i].map((low, k) => Math.round(low + (place - i) * (SCALE[i + 1][k] - low))).join(",")})`;
  }

  function parallel(runs, result) {
    const others = results.filter((column) => column !== result && column.kind === "result" && isNumeric(column, runs)).slice(0, 3);
    // as many settings as their names have room for beside each other
    const width = byId("results-chart").clientWidth || 620;
    const room = Math.max(1, Math.min(8, Math.floor(width / NARROWEST) - 1 - others.length));
    const columns = [...settings.slice(0, room), result, ...others];
    const most = Math.max(8, Math.floor(width / columns.length / LETTER));
    const headings = columns.map((column) => heading(column).split(/(?<=[./ ])/).slice(-3).map((line) => cut(line, most)));
    const axes = columns.map((column) => axis(column, runs));
    const at = columns.indexOf(result);
    const x = columns.map((_, i) => i);
    const lines = runs.map((run, i) => ({
      x, y: axes.map((own) => own.places[i]), mode: "lines+markers", line: { color: shade(axes[at].places[i]), width: 2 },
      marker: { size: 6 }, opacity: 0.85, hovertemplate: `%{text}<extra>${charts.plain(data.runs[run])}</extra>`,
      text: columns.map((column) => `${charts.plain(heading(column))}: ${charts.plain(column.cells[run].text)}`),
    }));
    const style = getComputedStyle(document.documentElement);
    const [colour, back] = ["--quiet", "--back"].map((name) => style.getPropertyValue(name).trim());
    const ticks = axes.flatMap((own, i) => own.ticks.map(([place, said]) => ({
      x: i, y: place, text: charts.plain(said), showarrow: false, xanchor: "right", xshift: -5, bgcolor: back, borderpad: 1, opacity: 0.9,
    })));
    return {
      traces: lines,
      layout: {
        xaxis: { tickvals: x, ticktext: headings.map((lines) => lines.map(charts.plain).join("<br>")), range: [-0.55, columns.length - 0.55], side: "top", tickangle: 0, ticklabeloverflow: "allow", showline: false, showgrid: false, zeroline: false, fixedrange: true },
        yaxis: { visible: false, range: [-0.06, 1.06], fixedrange: true },
        annotations: ticks,
        shapes: x.map((i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: 1, line: { color: colour, width: 1 }, layer: "below" })),
        hovermode: "closest", margin: { l: 10, r: 20, t: 40 + 15 * Math.max(...headings.map((lines) => lines.length)), b: 20 },
      },
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

  charts.add(byId("results-chart"), () => {
    const result = results[Number(byId("result").value)];
    const runs = data.runs.map((_, run) => run).filter((run) => report.isShown(run) && result.cells[run].number !== null);
    const view = byId("view").value;
    byId("setting-label").hidden = view !== "scatter";
    report.sayAttribute(byId("results-chart"), "aria-label", "results_label", { name: result.key });
    if (!runs.length) return { traces: [], layout: {} };
    return view === "parallel" ? parallel(runs, result) : scatter(runs, result, settings[Number(byId("setting").value)]);
  });
  for (const id of ["result", "view", "setting"]) byId(id).addEventListener("change", charts.refresh);
})();
