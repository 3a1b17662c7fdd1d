// What all parts of the page share: its data, its language, its theme, and which runs are shown.
"use strict";
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const listeners = {};
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  const on = (event, listener) => (listeners[event] ||= []).push(listener);
  const tell = (event) => (listeners[event] || []).forEach((listener) => listener());

  // A browser may refuse storage to a file: choices are then forgotten when the page closes.
  const remembered = (key) => { try { return localStorage.getItem(`ddpm-report-${key}`); } catch { return null; } };
  const remember = (key, value) => { try { localStorage.setItem(`ddpm-report-${key}`, value); } catch { /* forgotten */ } };

  let language = byId("language").value;
  const text = (key, values = {}) =>
    data.texts[key][language].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));

  // Say an element in the page's language, now and whenever that changes.
  function say(element, key, values = {}) {
    element.dataset.text = key;
    element.dataset.values = JSON.stringify(values);
    element.textContent = text(key, values);
  }

  function sayAttribute(element, name, key, values = {}) {
    const all = JSON.parse(element.dataset.attributes || "{}");
    all[name] = [key, values];
    element.dataset.attributes = JSON.stringify(all);
    element.setAttribute(name, text(key, values));
  }

  function speak(chosen) {
    language = chosen;
    root.lang = chosen === "zh" ? "zh-CN" : chosen;
    for (const element of document.querySelectorAll("[data-text]"))
      element.textContent = text(element.dataset.text, JSON.parse(element.dataset.values || "{}"));
    for (const element of document.querySelectorAll("[data-attributes]"))
      for (const [name, [key, values]] of Object.entries(JSON.parse(element.dataset.attributes)))
        element.setAttribute(name, text(key, values));
    document.title = text("title", { name: data.name });
    tell("language");
  }

  function paint(chosen) {
    root.dataset.theme = chosen;
    tell("theme");
  }

  function start() {
    root.classList.add("scripted");
    byId("language").addEventListener("change", (event) => { remember("language", event.target.value); speak(event.target.value); });
    byId("theme").addEventListener("change", (event) => { remember("theme", event.target.value); paint(event.target.value); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tell("theme"));
    const theme = remembered("theme");
    if (["auto", "light", "dark"].includes(theme)) { byId("theme").value = theme; root.dataset.theme = theme; }
    const spoken = remembered("language");
    if (spoken !== language && ["en", "zh"].includes(spoken)) { byId("language").value = spoken; speak(spoken); }
  }

  // Runs that are shown: those whose box is ticked, and which the filter lets through.
  const ticked = data.runs.map(() => true);
  const matching = data.runs.map(() => true);
  const isShown = (run) => ticked[run] && matching[run];

  // Call once for many events of one frame.
  function once(action) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; action(); });
    };
  }

  return { data, on, tell, byId, text, say, sayAttribute, start, ticked, matching, isShown, once };
})();
