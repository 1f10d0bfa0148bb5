function select(title, id, options, key, otherwise, redraw) {
  const list = el("select", { id }, Object.entries(options).map(([value, text]) => el("option", { value, selected: value === chosen(key, otherwise) }, text)));
  list.addEventListener("change", () => { remember(key, list.value, otherwise); redraw(); });
  return el("label", null, el("span", null, title), list);
}
const radio = (title, key, options, redraw) => {
  const otherwise = Object.keys(options)[0], now = chosen(key, otherwise);
  return choice(title, key, options, (value) => { remember(key, value, otherwise); redraw(); }, now in options ? now : otherwise);
};

const differentDepths = new Set(runs.map(layersOf)).size > 1;
const exitChoices = { ...EXITS, ...Object.fromEntries(Array.from({ length: L }, (_, i) => [String(i + 1), `exit ${i + 1}`])) };
const exitSelect = several ? select("Exit", "exit", exitChoices, "exit", "last", drawCurves) : null;
const showExit = () => exitSelect && (exitSelect.hidden = chosen("view", "beside") !== "over");

const controls = el("div", { class: "controls" },
  exitMetrics.length ? select("Metric", "metric", Object.fromEntries(exitMetrics.map((key) => [key, nameOf(key)])), "metric", exitMetrics[0], () => { drawCurves(); drawDepth(); drawTables(); }) : null,
  several ? radio("Runs", "view", { beside: "side by side", over: "overlaid" }, () => { showExit(); drawCurves(); }) : null,
  exitSelect,
  radio("Scale", "scale", { log: "logarithmic", linear: "linear" }, () => { drawCurves(); drawDepth(); }),
  haveTokens ? radio("Over", "x", { step: "steps", token: "tokens" }, () => { drawCurves(); drawWork(); }) : null,
  select("Show", "from", { 0: "all", 0.5: "the last half", 0.75: "the last quarter", 0.9: "the last tenth" }, "from", "0", () => { drawCurves(); drawWork(); }),
  toggle("Events", "events", !chosen("events", ""), (on) => { remember("events", on ? "" : "0", ""); view.classList.toggle("no-events", !on); }));

const eventLegend = el("ul", { class: "legend" },
  ["restart", "skipped", "checkpoint"].map((kind) => el("li", null, svg("svg", { class: "chart-mark", viewBox: "0 0 14 12", width: 14, height: 12, "aria-hidden": "true" },
    kind === "skipped" ? svg("path", { class: "mark skipped", d: "M3 2h8l-4 8z" }) : svg("path", { class: `mark ${kind}`, d: kind === "restart" ? "M7 0V12" : "M7 12V4" })),
  { restart: "continued after a stop", skipped: "update skipped", checkpoint: "checkpoint, kept" }[kind])));

const notes = runs.flatMap((run) => run.notes.map((note) => el("li", null, several ? `${run.name}: ${note}` : note)));
const view = el("div", { id: "view", class: chosen("events", "") ? "no-events" : null },
  freshness(),
  several ? el("div", { id: "runs" }, allRuns()) : oneRun(runs[0]),
  notes.length ? el("ul", { class: "problems" }, notes) : "",
  el("h2", null, "Over training"),
  controls, curves, exitLegend, eventLegend,
  el("h2", null, "Over depth"),
  el("div", { class: "controls" },
    el("label", { class: "slider" }, el("span", null, "Validation"), slider, sliderStep),
    differentDepths ? radio("By", "depth", { layer: "exit layer", share: "share of the layers" }, drawDepth) : null),
  depth,
  el("h2", null, "Steps of training"),
  work,
  el("h2", null, "Schedules"),
  el("p", { class: "note" }, "p(l, t): with what probability a row skips layer l at step t. e~(t, l): how much the exit after layer l weighs in the loss. ",
    "Computed from config.yaml; darker or brighter is more, on a scale of square roots."),
  schedules,
  el("h2", null, "Last validation"),
  lastTable,
  el("h2", null, "Events"),
  eventTable,
  configurations());
main.replaceChildren(view);
showExit();
drawAll();
restoreFocus();
