const n = data.tokens.length;
const L = data.n_layers;
const shown = (id) => data.shown[id];
const best = (layer, at) => data.top_ids[layer - 1][at][0];
const PRINTED_COLUMNS = 13;

function cell(layer, at, forPrint) {
  const id = best(layer, at);
  const marks = [id === best(L, at) && "same", layer === data.layers_needed[at] && "settles"].filter(Boolean).join(" ");
  const td = el("td", { class: marks, "data-at": `${layer},${at}`, tabindex: forPrint ? null : "-1" }, token(shown(id), false));
  td.style.setProperty("--p", data.top_probabilities[layer - 1][at][0]);
  return td;
}

/** The table of some columns. */
function table(from, to, forPrint) {
  const columns = Array.from({ length: to - from }, (_, i) => from + i);
  const generatedFrom = n - data.n_generated + 1;
  const head = el("tr", null, el("th", { scope: "col" }, "read"), columns.map((at) =>
    el("th", { scope: "col", class: data.n_generated && at >= generatedFrom ? "generated" : null }, token(shown(data.tokens[at]), false))));
  const rows = Array.from({ length: L }, (_, i) => L - i).map((layer) => el("tr", null,
    el("th", { scope: "row", title: `layer ${layer}: ${percent(data.settled_share[layer - 1])} of the predictions have settled` }, String(layer)),
    columns.map((at) => cell(layer, at, forPrint))));
  const foot = el("tr", null, el("th", { scope: "row" }, "settles"),
    columns.map((at) => el("td", null, String(data.layers_needed[at]))));
  return el("table", { class: "lens", role: forPrint ? null : "grid", "aria-label": "Prediction of every layer at every position" },
    el("thead", null, head), el("tbody", null, rows), el("tfoot", null, foot));
}

function describe(td) {
  const [layer, at] = td.dataset.at.split(",").map(Number);
  const ids = data.top_ids[layer - 1][at];
  const last = best(L, at);
  const needed = data.layers_needed[at];
  return [
    el("h3", null, `Layer ${layer} of ${L}, position ${count(data.first_position + at)}`),
    el("div", null, "after ", quoted(shown(data.tokens[at]))),
    el("table", null, el("tbody", null, ids.map((id, i) => el("tr", null,
      el("td", null, quoted(shown(id)), id === last ? " =" : ""),
      el("td", null, percent(data.top_probabilities[layer - 1][at][i])))))),
    el("p", null, "= the last layer's prediction ", quoted(shown(last)), `, here ${percent(data.last_layers_choice[layer - 1][at])}.`),
    el("p", null, needed === L ? "Settles in the last layer." : `Settles in layer ${needed}; ${L - needed} more would not be needed.`),
  ];
}

const MOVES = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [5, 0], PageDown: [-5, 0] };

function neighbour(td, key) {
  let [layer, at] = td.dataset.at.split(",").map(Number);
  if (key === "Home") at = 0;
  else if (key === "End") at = n - 1;
  else if (key in MOVES) {
    layer = Math.min(L, Math.max(1, layer + MOVES[key][0]));
    at = Math.min(n - 1, Math.max(0, at + MOVES[key][1]));
  } else return null;
  return scroll.querySelector(`[data-at="${layer},${at}"]`);
}

function settledChart() {
  const rows = data.settled_share.map((share, i) => el("tr", null, el("td", null, String(i + 1)), el("td", null, percent(share))));
  return el("details", null, el("summary", null, "Share of the predictions settled by each layer"),
    el("div", { class: "scroll" }, el("table", { class: "numbers" },
      el("thead", null, el("tr", null, el("th", { scope: "col" }, "layer"), el("th", { scope: "col" }, "settled"))), el("tbody", null, rows))));
}

const panel = el("section", { class: "panel", "aria-live": "polite", "aria-label": "Prediction" },
  el("p", { class: "note" }, "Point at a prediction, tap it, or move with the arrow keys."));
const scroll = el("div", { class: "scroll lenses" }, table(0, n, false));
const view = el("div", { id: "view", class: "by-probability" });
const cut = data.first_position
  ? `The text has ${count(data.first_position + n)} positions; the last ${count(n)} are shown and counted. Show more with max_positions=.` : null;

view.append(
  totals({
    "layers needed on average": `${data.mean_layers_needed.toFixed(2)} of ${L}`,
    "for what was generated": data.mean_layers_needed_generated?.toFixed(2) ?? null,
    "positions": count(n),
  }),
  cut ? el("p", { class: "note", role: "note" }, cut) : "",
  el("p", { class: "note" }, "Each column reads the token above it and shows what every layer, through the final norm and the shared head, ",
    "predicts to come next; the last layer is on top. A prediction settles in the first layer from which on it stays the last layer's."),
  el("div", { class: "controls" },
    choice("Colour by", "colour", { probability: "probability", agreement: "same as the last layer" },
      (value) => { view.className = `by-${value}`; })),
  el("ul", { class: "legend" },
    el("li", { class: "for-probability" }, el("span", null, "0%"), el("span", { class: "ramp" }), "100% probability of the token shown"),
    el("li", { class: "for-agreement" }, el("span", { class: "swatch same-swatch" }, "bold"), "same as the last layer"),
    el("li", null, el("span", { class: "swatch settles-swatch" }, "abc"), "settles here: a thick line below"),
    data.n_generated ? el("li", null, el("i", { class: "swatch generated-swatch" }, "abc"), "generated") : null),
  el("div", { class: "with-panel" }, scroll, panel),
  settledChart(),
);
main.replaceChildren(view);
explore(scroll, panel, describe, neighbour);

// Paper does not scroll: there the table is cut into as many columns as fit.
const printed = el("div", { class: "print" });
view.append(printed);
addEventListener("beforeprint", () => {
  const starts = Array.from({ length: Math.ceil(n / PRINTED_COLUMNS) }, (_, i) => i * PRINTED_COLUMNS);
  printed.replaceChildren(...starts.map((from) => table(from, Math.min(n, from + PRINTED_COLUMNS), true)));
});
addEventListener("afterprint", () => printed.replaceChildren());
