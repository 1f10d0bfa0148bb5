const runs = data.runs.map((run, i) => ({ ...run, i, colour: `var(--run-${i % 8})`, dash: ["", "7 3", "2 3", "9 3 2 3"][i % 4] }));
const several = runs.length > 1;
const L = Math.max(2, ...runs.map((run) => run.n_layers ?? Math.max(0, ...run.validations.exits)));
const hidden = () => new Set(chosen("hide", "").split(",").filter(Boolean).map(Number));
const visible = () => runs.filter((run) => !hidden().has(run.i));
const plainPercent = (v) => `${Number((100 * v).toPrecision(3))}%`;

/** What metrics are called, and how their values are written; others go by their keys. */
const METRICS = {
  "val/ppl": ["Held-out perplexity", short],
  "val/loss": ["Held-out loss, nats per token", short],
  "val/bpb": ["Held-out bits per byte", short],
  "val/agreement": ["Agreement with the last layer", plainPercent],
  "val/acceptance": ["Acceptance: the chance that a sampled draft is kept", plainPercent],
  "train/loss": ["Training loss of each exit, nats per token", short],
  "train/divergence": ["Divergence of each exit from the last layer, training", short],
  "train/objective": ["Weighted training loss over the active exits", short],
  "train/grad_norm": ["Gradient norm before clipping", short],
  "train/lr": ["Learning rate", short],
  "train/tokens_per_second": ["Tokens per second, all ranks", short],
  "train/data_wait_fraction": ["Time spent waiting for data", plainPercent],
  "train/memory_gib": ["Peak memory of the accelerator, GiB", short],
  "train/active_exits": ["Exits with a weight in this step", short],
  "train/layer_grad_norm": ["Gradient norm of each layer, before clipping", short],
  "train/layer_grad_norm/rest": ["Gradient norm of embedding, final norm and head", short],
  "train/dropout": ["p(l, t) as it was used", short],
  "train/exit_weight": ["e~(t, l) as it was used, mean since the last validation", short],
  "train/tokens_per_second_per_device": ["Tokens per second and rank", short],
  "train/checkpoint_seconds": ["Seconds that training stood still for checkpoints", short],
  "train/checkpoint_write_seconds": ["Seconds until checkpoints were complete", short],
  "val/predicted_speedup": ["Predicted speed-up of self-speculation, temperature 1", short],
  "val/predicted_speedup_greedy": ["Predicted speed-up of self-speculation, greedy", short],
  "val/predicted_exit_layer": ["Exit layer E with that speed-up, temperature 1", short],
  "val/predicted_exit_layer_greedy": ["Exit layer E with that speed-up, greedy", short],
  "val/predicted_num_speculations": ["Drafts per round d with it, temperature 1", short],
  "val/predicted_num_speculations_greedy": ["Drafts per round d with it, greedy", short],
  "train/mfu": ["Share of the accelerator's peak FLOP/s (MFU)", plainPercent],
  "train/bad_steps": ["Skipped steps so far", short],
};
const NOT_DRAWN = ["train/tokens", "val/tokens"];
const OF_LAYER = /^(.+)\/(exit|layer)_(\d+)$/;
const nameOf = (key) => METRICS[key]?.[0] ?? key;
const formatOf = (key) => METRICS[key]?.[1] ?? short;
const known = (keys) => [...Object.keys(METRICS).filter((key) => keys.has(key)), ...[...keys].filter((key) => !(key in METRICS)).sort()];

const depthColour = (layer, layers) => {
  const share = (3 * (layer - 1)) / Math.max(1, layers - 1), i = Math.min(2, Math.floor(share));
  return `color-mix(in oklab, var(--depth-${i}) ${Math.round(100 * (1 - share + i))}%, var(--depth-${i + 1}))`;
};
const layersOf = (run) => run.n_layers ?? run.validations.exits.at(-1) ?? L;

/** What is counted from 1 in a metric of several: exits, but where a whole layer is measured. */
const WORDS = {};
const wordOf = (key) => WORDS[key] ?? "exit";

/** Metric -> exit layer -> [steps, values] of a run, of validation and of training. */
function byExit(run) {
  const found = {};
  const { steps, exits, metrics } = run.validations;
  for (const [metric, rows] of Object.entries(metrics)) {
    found[metric] = new Map(exits.map((exit, j) => [exit, [steps, rows.map((row) => row[j])]]));
  }
  for (const [key, series] of Object.entries(run.series)) {
    const [, metric, word, layer] = key.match(OF_LAYER) ?? [];
    if (!metric) continue;
    (found[metric] ??= new Map()).set(Number(layer), series);
    WORDS[metric] = word;
  }
  for (const [metric, map] of Object.entries(found)) found[metric] = new Map([...map].sort(([a], [b]) => a - b));
  return found;
}
for (const run of runs) run.byExit = byExit(run);
const exitMetrics = known(new Set(runs.flatMap((run) => Object.keys(run.byExit))));
const validated = exitMetrics.filter((metric) => runs.some((run) => metric in run.validations.metrics));
const metric = () => (exitMetrics.includes(chosen("metric", "")) ? chosen("metric", "") : exitMetrics[0]);
const depthMetric = () => (validated.includes(metric()) ? metric() : validated[0]);

const haveTokens = runs.every((run) => run.tokens_per_step);
const overTokens = () => haveTokens && chosen("x", "step") === "token";
const xOf = (run, steps) => (overTokens() ? steps.map((step) => step * run.tokens_per_step) : steps);
const isPercent = (key) => formatOf(key) === plainPercent;
const mostOf = (key) => (isPercent(key) ? 1 : undefined);

/** The part of the runs that is drawn: the last half, quarter, ... */
const from = () => Number(chosen("from", "0")) * Math.max(1, ...visible().map((run) => run.step));
function cut(line) {
  const least = from();
  const keep = line.steps.map((step, j) => (step >= least ? j : -1)).filter((j) => j >= 0);
  return { ...line, x: xOf(line.owner, keep.map((j) => line.steps[j])), y: keep.map((j) => line.y[j]), run: line.owner.i };
}

function marksOf(some) {
  const kinds = ["checkpoint", "restart", "skipped"];
  return some.flatMap((run) => run.events.filter((e) => kinds.includes(e.kind) && e.step >= from())
    .map((e) => ({ x: xOf(run, [e.step])[0], kind: e.kind, run: run.i, colour: several ? run.colour : null, what: several ? `${run.name}: ${e.what}` : e.what })));
}

/** Lines of one run by exit, or of several runs at one exit each. */
function exitLines(run) {
  const layers = layersOf(run);
  return [...(run.byExit[metric()] ?? [])].map(([exit, [steps, y]]) => cut({
    name: `${wordOf(metric())} ${exit}`, steps, y, owner: run, colour: depthColour(exit, layers), width: exit === layers ? 2.6 : 1.4 }));
}
const EXITS = { last: "last layer", middle: "middle layer, L/2", quarter: "a quarter of the layers, L/4" };
function exitOf(run, which) {
  const layers = layersOf(run), wanted = { last: layers, middle: layers / 2, quarter: layers / 4 }[which] ?? Number(which);
  const exits = [...(run.byExit[metric()]?.keys() ?? [])];
  if (!(which in EXITS)) return exits.includes(wanted) ? wanted : null;
  return exits.reduce((best, exit) => (best === null || Math.abs(exit - wanted) < Math.abs(best - wanted) ? exit : best), null);
}
function overlaid() {
  return visible().flatMap((run) => {
    const exit = exitOf(run, chosen("exit", "last")), series = run.byExit[metric()]?.get(exit);
    return series ? [cut({ name: `${run.name}, ${wordOf(metric())} ${exit}`, steps: series[0], y: series[1], owner: run, colour: run.colour, dash: run.dash, width: 2 })] : [];
  });
}

/** Which line is which run. */
const runLegend = () => (several ? el("ul", { class: "legend" }, visible().map((run) => el("li", null, sample(run.colour, run.dash), run.name))) : "");
const exitLegend = el("ul", { class: "legend", "aria-label": "Colours of the exits" }, el("li", null, "exit after layer"),
  Array.from({ length: L }, (_, i) => i + 1).filter((e) => L <= 16 || e === 1 || e === L || e % Math.ceil(L / 12) === 0)
    .map((e) => el("li", null, sample(depthColour(e, L)), String(e))));

const curves = el("div");
function drawCurves() {
  const options = { xName: overTokens() ? "token" : "step", format: formatOf(metric()), most: mostOf(metric()), log: chosen("scale", "log") === "log" && !isPercent(metric()) };
  const marked = visible();
  exitLegend.hidden = several && chosen("view", "beside") === "over";
  if (exitLegend.hidden) {
    show(curves, el("div", { class: "charts large" }, lineChart("curve-over", overlaid(), { ...options, title: nameOf(metric()), marks: marksOf(marked) })), runLegend());
    return;
  }
  const lines = marked.map(exitLines);
  const y = extent(lines.flat(), "y", options.log), x = extent(lines.flat(), "x", false);
  const ends = several && y && x ? { y, x } : undefined;
  show(curves, el("div", { class: "charts large" }, marked.map((run, i) =>
    lineChart(`curve-${run.i}`, lines[i], { ...options, title: several ? run.name : nameOf(metric()), marks: marksOf([run]), ends }))));
}

/** Over depth: a validation of each run, the others faint. */
const depth = el("div");
const slider = el("input", { type: "range", id: "validation", min: "0", step: "1", "aria-describedby": "validation-step" });
const sliderStep = el("output", { id: "validation-step", for: "validation" });
const validationSteps = () => [...new Set(visible().flatMap((run) => run.validations.steps))].sort((a, b) => a - b);
function drawDepth() {
  const steps = validationSteps(), key = depthMetric();
  slider.max = String(Math.max(0, steps.length - 1));
  slider.disabled = steps.length < 2;
  const wanted = chosen("at", "");
  const index = wanted === "" ? steps.length - 1 : steps.findLastIndex((step) => step <= Number(wanted));
  slider.value = String(Math.max(0, index));
  const until = steps[Math.max(0, index)];
  sliderStep.textContent = steps.length ? `step ${count(until)}, ${index + 1} of ${steps.length}` : "no validation yet";
  const share = chosen("depth", "layer") === "share";
  const lines = visible().flatMap((run) => {
    const { exits, metrics, steps: own } = run.validations, rows = metrics[key] ?? [];
    const x = share ? exits.map((exit) => exit / layersOf(run)) : exits;
    const now = own.findLastIndex((step) => step <= until);
    const line = (y, more) => ({ name: several ? run.name : "", x, y, run: run.i, colour: several ? run.colour : "var(--accent)", dash: several ? run.dash : "", ...more });
    const others = several ? [] : rows.filter((_, j) => j !== now && j % Math.ceil(rows.length / 24) === 0).map((y) => line(y, { faint: true, width: 1 }));
    return now < 0 ? others : [...others, line(rows[now], { width: 2.2, name: `${several ? `${run.name}, ` : ""}step ${count(own[now])}` })];
  });
  const log = chosen("scale", "log") === "log" && !isPercent(key ?? "");
  show(depth, el("div", { class: "charts large" }, lineChart("depth", lines, {
    title: key ? nameOf(key) : "No validation", xName: share ? "share of the layers" : "exit layer", xFormat: share ? plainPercent : big, whole: !share,
    format: formatOf(key), most: mostOf(key), log })), runLegend());
}
slider.addEventListener("input", () => {
  const steps = validationSteps(), index = Number(slider.value);
  remember("at", index === steps.length - 1 ? "" : String(steps[index]), "");
  drawDepth();
});

const work = el("div");
function drawWork() {
  const keys = known(new Set(visible().flatMap((run) => Object.keys(run.series)).filter((key) => !OF_LAYER.test(key) && !NOT_DRAWN.includes(key))));
  show(work, runLegend(), el("div", { class: "charts" }, keys.map((key) => {
    const lines = visible().flatMap((run) => (run.series[key] ? [cut({
      name: several ? run.name : nameOf(key), steps: run.series[key][0], y: run.series[key][1], owner: run, colour: several ? run.colour : "var(--accent)", dash: several ? run.dash : "" })] : []));
    const ends = extent(lines, "y", false);
    return lineChart(`work-${key.replaceAll("/", "-")}`, lines, { title: nameOf(key), xName: overTokens() ? "token" : "step", format: formatOf(key), most: mostOf(key),
      log: Boolean(ends) && ends[0] > 0 && ends[1] / ends[0] > 50, marks: marksOf(visible()) });
  })));
}

/** Runs with the same schedules share their pictures. */
const schedules = el("div");
function drawSchedules() {
  const groups = new Map();
  for (const run of visible()) if (run.schedules.length) {
    const key = JSON.stringify(run.schedules);
    groups.set(key, [...(groups.get(key) ?? []), run]);
  }
  show(schedules, [...groups.values()].flatMap((group) => [
    several ? el("h3", null, group.map((run) => run.name).join(", ")) : "",
    el("div", { class: "charts" }, group[0].schedules.map((map, i) => heatMap(`heat-${group[0].i}-${i}`, map)))]),
  groups.size ? "" : el("p", { class: "note" }, "No config.yaml to compute them from."));
}

function drawAll() {
  drawCurves(); drawDepth(); drawWork(); drawSchedules(); drawTables();
}
