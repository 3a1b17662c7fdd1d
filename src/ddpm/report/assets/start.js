// Last: choices that were remembered, and what needs all parts.
"use strict";
report.start();
if (report.applyRuns) report.applyRuns();
if (report.byId("only-differing"))
  report.byId("only-differing").addEventListener("change", (event) => report.byId("settings").classList.toggle("only", event.target.checked));
