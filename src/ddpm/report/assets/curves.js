// The curves of all metrics, with the runs over each other.
"use strict";
if (report.byId("smoothing")) (() => {
  const { data, byId, charts } = report;
  const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
  let smoothing = 0;

  // An exponential average whose beginning is not drawn towards zero.
  function smoothed(values) {
    let sum = 0, weight = 0;
    return values.map((value) => {
      if (value === null) return null;
      sum = smoothing * sum + (1 - smoothing) * value;
      weight = smoothing * weight + (1 - smoothing);
      return sum / weight;
    });
  }

  // Around a value that never changes: of its own, plotly would label many ticks between it and itself.
  function around(values, isLog) {
    const known = values.filter((value) => value !== null && (!isLog || value > 0));
    const [low, high] = [Math.min(...known), Math.max(...known)];
    if (!known.length || high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high))) return { autorange: true };
    const by = 0.1 * Math.abs(low) || 1;
    return { autorange: false, range: isLog ? [Math.log10(low) - 0.5, Math.log10(low) + 0.5] : [low - by, low + by], nticks: 5 };
  }

  function content(chart) {
    const traces = [];
    const shown = Object.keys(chart.curves).map(Number).filter(report.isShown);
    for (const run of shown) {
      const [steps, values] = chart.curves[run];
      const line = { color: charts.colour(run), dash: charts.dash(run), width: 1.7 };
      const mode = steps.length < 3 ? "lines+markers" : "lines";
      const name = charts.plain(data.runs[run]);
      if (smoothing > 0)
        traces.push({ x: steps, y: values, mode, line: { ...line, width: 1 }, opacity: 0.22, hoverinfo: "skip" });
      traces.push({
        x: steps, y: smoothing > 0 ? smoothed(values) : values, mode, line, name,
        hovertemplate: data.runs.length > 1 ? `%{y:.5g}<extra>${name}</extra>` : "%{y:.5g}<extra></extra>",
      });
    }
    const positive = traces.some((trace) => trace.y.some((value) => value > 0));
    const isLog = byId("log").checked && positive;
    const last = Math.max(1, ...shown.map((run) => chart.curves[run][0].at(-1)));
    const [from, to] = [number("from"), number("to")];
    const range = from !== null || to !== null ? { range: [from ?? 0, to ?? last], autorange: false } : { autorange: true };
    return {
      traces,
      layout: {
        xaxis: { ...range, hoverformat: "d", dtick: last < 6 ? 1 : null },
        yaxis: { type: isLog ? "log" : "linear", exponentformat: "power", ...around(traces.flatMap((trace) => trace.y), isLog) },
        hovermode: shown.length > 1 && shown.length <= 12 ? "x unified" : "closest",
        uirevision: `${from} ${to} ${isLog}`, // a zoom stays when anything else changes
      },
    };
  }

  for (const element of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts[Number(element.dataset.chart)];
    charts.add(element, () => content(chart));
  }
  byId("smoothing").addEventListener("input", (event) => {
    smoothing = Number(event.target.value);
    byId("smoothing-value").textContent = smoothing;
    charts.refresh();
  });
  for (const id of ["log", "from", "to"]) byId(id).addEventListener("change", charts.refresh);
  byId("whole").addEventListener("click", () => {
    byId("from").value = byId("to").value = "";
    document.querySelectorAll("[data-chart].js-plotly-plot").forEach((element) => Plotly.relayout(element, { "xaxis.autorange": true, "yaxis.autorange": true }));
    charts.refresh();
  });
})();
