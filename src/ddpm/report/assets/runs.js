// The table of runs: sorted by its headings, filtered by words and comparisons, ticked to be shown.
"use strict";
if (report.byId("table")) (() => {
  const { data, byId } = report;
  const table = byId("table");
  const rows = [...table.tBodies[0].rows];
  const boxes = rows.map((row) => row.querySelector("input"));

  const cell = (run, column) => {
    if (column < 0) return { text: data.runs[run], number: null };
    const found = data.columns[column].cells[run];
    return found.text_key && found.text_key in data.texts ? { ...found, said: report.text(found.text_key) } : found;
  };

  function sort(heading) {
    const column = Number(heading.dataset.column);
    const own = heading.closest("th");
    const isUp = own.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    own.setAttribute("aria-sort", isUp ? "ascending" : "descending");
    const order = new Intl.Collator(undefined, { numeric: true });
    const compared = (a, b) => {
      const [x, y] = [cell(a.dataset.run, column), cell(b.dataset.run, column)];
      const lacks = (one) => one.text === "–";
      if (lacks(x) || lacks(y)) return lacks(x) - lacks(y); // those that have nothing come last, either way
      const difference = x.number !== null && y.number !== null ? x.number - y.number : order.compare(x.text, y.text);
      return isUp ? difference : -difference;
    };
    table.tBodies[0].append(...rows.sort(compared));
  }

  // The column that a comparison names: by its key, or by the end of it where no other ends so.
  function named(name) {
    if (name === "run") return -1;
    const keys = data.columns.map((column) => column.key.toLowerCase());
    if (keys.includes(name)) return keys.indexOf(name);
    const ending = keys.flatMap((key, i) => (/[./ ]/.test(key) && key.split(/[./ ]/).pop() === name ? [i] : []));
    return ending.length === 1 ? ending[0] : null;
  }

  function test(term) {
    const match = /^(.+?)(<=|>=|!=|<|>|=)(.+)$/.exec(term);
    const column = match ? named(match[1]) : null;
    if (column === null)
      return (run) => data.columns.some((_, i) => contains(cell(run, i), term)) || contains(cell(run, -1), term);
    const [, , sign, wanted] = match;
    return (run) => {
      const found = cell(run, column);
      const number = Number(wanted);
      if (found.number !== null && !Number.isNaN(number)) {
        const value = found.number;
        return { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number, "=": value === number, "!=": value !== number }[sign];
      }
      const same = [found.text, found.said].some((one) => one !== undefined && one.toLowerCase() === wanted);
      return sign === "=" ? same : sign === "!=" ? !same : false;
    };
  }
  const contains = (found, term) => [found.text, found.said].some((one) => one !== undefined && one.toLowerCase().includes(term));

  function apply() {
    const terms = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    data.runs.forEach((_, run) => { report.matching[run] = terms.every((passes) => passes(run)); });
    boxes.forEach((box) => { report.ticked[Number(box.dataset.run)] = box.checked; });
    for (const row of rows) {
      const run = Number(row.dataset.run);
      row.hidden = !report.matching[run];
      row.classList.toggle("off", !report.ticked[run]);
    }
    for (const row of document.querySelectorAll("#curves tr[data-run], #measurements tr[data-run]")) row.hidden = !report.isShown(Number(row.dataset.run));
    const n = data.runs.filter((_, run) => report.isShown(run)).length;
    report.say(byId("shown"), "shown_of", { n, total: data.runs.length });
    report.tell("runs");
  }

  function tick(value) {
    boxes.forEach((box) => { if (report.matching[Number(box.dataset.run)]) box.checked = value; });
    apply();
  }

  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest(".sort");
    if (heading) sort(heading);
  });
  table.tBodies[0].addEventListener("change", apply);
  byId("filter").addEventListener("input", report.once(apply));
  byId("show-all").addEventListener("click", () => tick(true));
  byId("show-none").addEventListener("click", () => tick(false));
  report.applyRuns = apply;
})();
