const { n_layers: L, exit_layer: E, num_speculations: d, rounds } = data;
const speculative = d !== null;
const supplier = E === null || speculative ? `all ${L} layers` : `the first ${E} of ${L} layers`;

const flow = el("div", { class: "flow text hide-rejected", role: "group", "aria-label": "Generated text" });
const given = el("span", { class: "given" }, data.prompt.map((shown) => token(shown, true)));
flow.append(given);
const told = new Map();

function add(node, shown, what) {
  node.append(token(shown, what.place !== null));  // the newline of a rejected draft is not in the text
  node.dataset.at = String(told.size);
  node.tabIndex = -1;
  told.set(node.dataset.at, what);
  flow.append(node);
}

let place = 0;
rounds.forEach((round, r) => {
  if (speculative) flow.append(el("span", { class: "round", "aria-hidden": "true" }, "|"));
  for (let i = 0; i < round.n_tokens; i += 1, place += 1) {
    if (i === round.n_accepted) round.rejected.forEach(reject);
    const drafted = i < round.n_accepted;
    add(el("span", { class: drafted ? "drafted" : "full" }), data.shown[place], {
      kind: drafted ? "Drafted and accepted" : `Supplied by ${supplier}`, shown: data.shown[place], id: data.ids[place], place, r });
  }
  function reject(shown, j) {
    add(el("del", { class: "rejected" }), shown, {
      kind: j === 0 ? "Drafted and rejected" : "Drafted after a rejected token, and dropped", shown, id: round.rejected_ids[j], place: null, r });
  }
});

function describe(node) {
  const { kind, shown, id, place: at, r } = told.get(node.dataset.at);
  const round = rounds[r];
  const lines = [
    el("h3", null, kind),
    el("div", null, shown.length ? quoted(shown) : "part of a character, which stands with its last token"),
    el("p", { class: "note" }, at === null ? `id ${count(id)}` : `token ${count(at + 1)}, id ${count(id)}`),
  ];
  if (!speculative) return lines;
  const name = round.n_drafted ? `Round ${count(r + 1)}: ${round.n_accepted} of ${round.n_drafted} drafts accepted.`
    : `Round ${count(r + 1)}: nothing drafted${r ? "" : "; the prompt was read"}.`;
  lines.push(el("p", null, name));
  if (round.rejected.length && round.n_tokens > round.n_accepted) {
    const first = rounds.slice(0, r).reduce((sum, before) => sum + before.n_tokens, 0);
    lines.push(el("p", null, "In place of ", quoted(round.rejected[0]), " the full model has ", quoted(data.shown[first + round.n_accepted]), "."));
  }
  return lines;
}

function neighbour(node, key) {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key];
  const items = [...flow.querySelectorAll("[data-at]")].filter((item) => item.getClientRects().length);
  if (key === "Home") return items[0];
  if (key === "End") return items.at(-1);
  return step ? items[items.indexOf(node) + step] : null;
}

const sum = (key) => rounds.reduce((total, round) => total + round[key], 0);
const nTokens = sum("n_tokens");
const drafting = rounds.slice(1);  // what comes after the prompt
const rejected = rounds.some((round) => round.rejected.length);
const panel = el("section", { class: "panel", "aria-live": "polite", "aria-label": "Token" },
  el("p", { class: "note" }, "Point at a token, tap it, or move with the arrow keys."));
const legend = speculative ? [
  el("li", null, el("span", { class: "swatch drafted" }, "abc"), `drafted by ${E} layers and accepted: line below`),
  el("li", null, el("span", { class: "swatch full" }, "abc"), `supplied by all ${L}: bold, dotted line`),
  rejected ? el("li", null, el("del", { class: "swatch rejected" }, "abc"), "drafted and rejected: struck out") : null,
] : [el("li", null, el("span", { class: "swatch full" }, "abc"), `supplied by ${supplier}`)];

main.replaceChildren(
  totals({
    "accepted of the drafts": sum("n_drafted") ? percent(sum("n_accepted") / sum("n_drafted")) : null,
    "tokens per round": speculative && drafting.length ? ((nTokens - rounds[0].n_tokens) / drafting.length).toFixed(2) : null,
    "exit layer E": E === null ? null : `${E} of ${L}`,
    "drafts per round d": speculative ? String(d) : null,
    "tokens": count(nTokens),
    "tokens/s": speed(nTokens / data.seconds),
    "seconds": data.seconds.toFixed(2),
  }),
  speculative ? el("div", { class: "controls" },
    rejected ? toggle("Rejected drafts", "show-rejected", false, (on) => flow.classList.toggle("hide-rejected", !on)) : null,
    toggle("Rounds", "show-rounds", true, (on) => flow.classList.toggle("hide-rounds", !on)),
    toggle("Colours", "show-colours", true, (on) => flow.classList.toggle("plain", !on))) : "",
  el("ul", { class: "legend" }, el("li", null, el("span", { class: "swatch given" }, "abc"), "given"), legend),
  el("div", { class: "with-panel" }, flow, panel),
);
explore(flow, panel, describe, neighbour);
