const rows = data.rows;
const several = data.prompts.length > 1;

function same(row, i) {
  if (i === 0) return "–";
  const ties = row.near_ties ? `, ${row.near_ties} near-tie${row.near_ties > 1 ? "s" : ""}` : "";
  return several ? `${row.same} of ${row.n_prompts}${ties}` : row.same ? "yes" : `no${ties}`;
}

function summary() {
  const head = ["", "tokens/s", "layers per token", "drafts accepted", "same text"];
  return el("div", { class: "scroll" }, el("table", { class: "numbers" },
    el("thead", null, el("tr", null, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", null, rows.map((row, i) => el("tr", null,
      el("th", { scope: "row" }, row.mode),
      el("td", null, speed(row.tokens_per_second)),
      el("td", null, row.layers_per_token.toFixed(1)),
      el("td", null, row.acceptance === null ? "–" : percent(row.acceptance)),
      el("td", null, same(row, i)))))));
}

function verdict(side, i) {
  if (i === 0) return el("span", { class: "verdict" }, "the reference");
  if (side.differs_at === null) return el("span", { class: "verdict good" }, "✓ same as autoregressive");
  const where = `differs from token ${count(side.differs_at + 1)} on`;
  if (side.near_tie) return el("span", { class: "verdict" }, `≈ ${where}: a near-tie, which rounding decides`);
  return el("span", { class: `verdict${side.must_be_same ? " bad" : ""}` }, `≠ ${where}${side.must_be_same ? ", which must not be" : ""}`);
}

function text(side) {
  const parts = side.shown.map((shown, at) => {
    const node = el("span", null, token(shown, true));
    if (side.drafted) node.className = side.drafted[at] ? "drafted" : "full";
    if (side.differs_at !== null && at >= side.differs_at) node.classList.add("differs");
    if (at === side.differs_at) node.classList.add("first");
    return node;
  });
  return el("div", { class: "text plain", dir: "auto" }, parts);
}

function card(side, i) {
  const cost = `${speed(side.shown.length / side.seconds)} tokens/s, ${side.layers_per_token.toFixed(1)} layers per token`;
  const accepted = side.acceptance === null ? "" : `, ${percent(side.acceptance)} of the drafts accepted`;
  const instead = side.instead_of ? [" (", quoted(side.instead_of), " in autoregressive decoding)"] : "";
  return el("article", { class: "side" },
    el("h3", null, rows[i].mode),
    el("div", { class: "note" }, `${count(side.shown.length)} tokens, ${cost}${accepted}`),
    el("div", { class: "note" }, verdict(side, i), instead),
    text(side));
}

const sections = data.prompts.map((prompt, i) => el("section", null,
  el("h2", null, several ? `Prompt ${i + 1}` : "Prompt"),
  el("div", { class: "flow text given" }, prompt.prompt.map((shown) => token(shown, true))),
  el("div", { class: "sides" }, prompt.sides.map(card))));

const view = el("div", { id: "view" },
  summary(),
  el("p", { class: "note" }, "Greedy. Layers per token: passes through a layer, one after another and whatever their width, the prompt's included. ",
    "Times are of one run each, the prompt included; eval.benchmark measures."),
  el("div", { class: "controls" },
    toggle("Show which tokens were drafted", "show-drafted", false, (on) =>
      view.querySelectorAll(".side .text").forEach((node) => node.classList.toggle("plain", !on)))),
  el("ul", { class: "legend" },
    el("li", null, el("span", { class: "swatch differs first" }, "abc"), "the first token that differs from autoregressive decoding: outlined"),
    el("li", null, el("span", { class: "swatch differs" }, "abc"), "after it"),
    el("li", { class: "for-drafted" }, el("span", { class: "swatch drafted" }, "abc"), "drafted and accepted"),
    el("li", { class: "for-drafted" }, el("span", { class: "swatch full" }, "abc"), "supplied by the full model")),
  sections);
main.replaceChildren(view);
