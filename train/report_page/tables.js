const heads = (names) => el("thead", null, el("tr", null, names.map((name) => el("th", { scope: "col" }, name))));
const numbers = (head, rows, text = false) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${head[0] || "runs"} and ${head.slice(1).join(", ")}`.slice(0, 80) },
  el("table", { class: `numbers${text ? " text" : ""}` }, heads(head), el("tbody", null, rows)));

const lastOf = (run, key, which) => {
  const { exits, metrics } = run.validations, row = metrics[key]?.at(-1), layers = layersOf(run);
  const exit = which === "last" ? exits.at(-1) : exits.reduce((best, e) => (Math.abs(e - layers / 2) < Math.abs(best - layers / 2) ? e : best), exits[0]);
  return row ? row[exits.indexOf(exit)] : null;
};
const lastValue = (run, key) => run.series[key]?.[1].at(-1) ?? null;
const written = (value, format = short) => (value === null || value === undefined ? null : format(value));
const dashed = (text) => text ?? "–";
const tokens = (run) => (run.tokens_per_step ? big(run.step * run.tokens_per_step) : null);
const progressOf = (run) => `${count(run.step)}${run.total_steps ? ` of ${count(run.total_steps)}` : ""}`;

function left(run) {
  const speed = lastValue(run, "train/tokens_per_second");
  if (run.finished || !speed || !run.total_steps || !run.tokens_per_step || !run.state.startsWith("running")) return null;
  const hours = ((run.total_steps - run.step) * run.tokens_per_step) / speed / 3600;
  return hours < 1 ? `${Math.ceil(60 * hours)} min` : hours < 48 ? `${hours.toFixed(1)} h` : `${(hours / 24).toFixed(1)} days`;
}

/** One run in large numbers. */
function oneRun(run) {
  return totals({
    "state": run.state,
    "step": progressOf(run),
    "tokens": tokens(run),
    "left at this speed, without validations": left(run),
    "perplexity, last layer": written(lastOf(run, "val/ppl", "last")),
    "perplexity, middle layer": written(lastOf(run, "val/ppl", "middle")),
    "tokens/s": written(lastValue(run, "train/tokens_per_second")),
    "restarts": run.restarts ? String(run.restarts) : null,
    "skipped steps": run.skipped ? String(run.skipped) : null,
    "last row": run.last_written && !run.finished ? ago(run.last_written) : null,
  });
}

/** Several runs as rows, each with a check box that shows or hides it. */
function allRuns() {
  const head = ["run", "state", "step", "tokens", "perplexity, last layer", "middle layer", "tokens/s", "left", "restarts", "skipped"];
  return numbers(head, runs.map((run) => {
    const box = el("input", { type: "checkbox", id: `run-${run.i}`, checked: !hidden().has(run.i) });
    box.addEventListener("change", () => {
      const off = hidden();
      if (box.checked) off.delete(run.i); else off.add(run.i);
      remember("hide", [...off].join(","), "");
      drawAll();
    });
    const cells = [run.state, progressOf(run), tokens(run), written(lastOf(run, "val/ppl", "last")), written(lastOf(run, "val/ppl", "middle")),
      written(lastValue(run, "train/tokens_per_second")), left(run), String(run.restarts), String(run.skipped)];
    return el("tr", null, el("th", { scope: "row" }, el("label", null, box, sample(run.colour, run.dash), run.name)), cells.map((cell) => el("td", null, dashed(cell))));
  }));
}

/** The last validation: of one run all metrics, of several the one that is chosen. */
const lastTable = el("div");
const eventTable = el("div");
function drawTables() {
  const some = visible().filter((run) => run.validations.steps.length);
  const keys = several ? [depthMetric()] : validated;
  const columns = some.flatMap((run) => keys.map((key) => ({ run, key, row: run.validations.metrics[key]?.at(-1) ?? [] })));
  const exits = [...new Set(some.flatMap((run) => run.validations.exits))].sort((a, b) => a - b);
  const title = ({ run, key }) => (several ? `${run.name}, step ${count(run.validations.steps.at(-1))}` : nameOf(key));
  const heldOut = [...new Set(some.map((run) => lastValue(run, "val/tokens")))].filter(Boolean);
  const onWhat = heldOut.length ? el("p", { class: "note" }, `On ${heldOut.map((n) => short(n)).join(" or ")} held-out tokens; the one after the last step may be on more than those before (validation.final_tokens).`) : "";
  lastTable.replaceChildren(onWhat, columns.length ? numbers(["exit layer", ...columns.map(title)], exits.map((exit) => el("tr", null,
    el("th", { scope: "row" }, String(exit)),
    columns.map(({ run, key, row }) => el("td", null, dashed(written(row[run.validations.exits.indexOf(exit)], formatOf(key)))))))) : el("p", { class: "note" }, "No validation yet."));
  const events = visible().flatMap((run) => run.events.map((event) => ({ run, ...event }))).sort((a, b) => a.step - b.step);
  eventTable.replaceChildren(events.length ? numbers([...(several ? ["run"] : []), "step", "what", "when"], events.map(({ run, step, what, time }) => el("tr", null,
    several ? el("th", { scope: "row" }, run.name) : null, el("td", null, count(step)), el("td", null, what), el("td", null, time))), true) : el("p", { class: "note" }, "None so far."));
}

const configRows = (rows) => numbers(["key", ...(several ? runs.map((run) => run.name) : ["value"])], rows.map(([key, ...values]) => el("tr", null,
  el("th", { scope: "row" }, key), values.map((value) => el("td", null, value ?? "–")))), true);
function configurations() {
  const { different, same } = data;
  return [
    several ? el("h2", null, "Differences of the configurations") : "",
    several ? (different.length ? configRows(different) : el("p", { class: "note" }, "None: every key has the same value in all runs.")) : "",
    same.length ? el("details", { id: "same" }, el("summary", null, several ? `What is the same in all runs: ${same.length} keys` : "Configuration"), configRows(same.map((row) => (several ? row : row.slice(0, 2))))) : "",
  ];
}
