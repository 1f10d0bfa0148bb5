/**
 * A schedule over layer and step: a canvas whose pixels are as opaque as their values are great (their square roots, so
 * that small ones are seen), which looks right on a light page, a dark one and on paper.
 */
const HEAT = [60, 125, 225];

function heatMap(id, { title, columns, end }) {
  const layers = columns[0].length, most = Math.max(...columns.flat());
  const picture = el("canvas", { width: columns.length, height: layers });
  const ink = picture.getContext("2d"), image = ink.createImageData(columns.length, layers);
  columns.forEach((column, c) => column.forEach((value, layer) => {
    image.data.set([...HEAT, most ? Math.round(255 * Math.sqrt(value / most)) : 0], 4 * ((layers - 1 - layer) * columns.length + c));
  }));
  ink.putImageData(image, 0, 0);
  const readout = el("span", { class: "readout", "aria-live": "polite" });
  const box = el("div", { class: "cell" });
  const field = el("div", { class: "field" }, picture, box);
  const figure = el("figure", { class: "heat", id, tabindex: "0", role: "group", "aria-label": `${title}: ${layers} layers, arrow keys move` },
    el("figcaption", null, el("b", null, title), " ", readout),
    el("div", { class: "upright", "aria-hidden": "true" }, el("span", null, String(layers - 1)), el("span", null, "layer l"), el("span", null, "0")),
    field,
    el("div", { class: "level", "aria-hidden": "true" }, el("span", null, "0"), el("span", null, "step t"), el("span", null, big(end - 1))),
    el("div", { class: "key" }, most ? [el("span", null, "0"), el("span", { class: "shades", "aria-hidden": "true" }), el("span", null, short(most))] : "0 everywhere"));
  let at = null;

  function go(column, layer) {
    at = [Math.min(columns.length - 1, Math.max(0, column)), Math.min(layers - 1, Math.max(0, layer))];
    const [c, l] = at, from = Math.floor((c * end) / columns.length), to = Math.ceil(((c + 1) * end) / columns.length) - 1;
    readout.textContent = `${short(columns[c][l])} in layer ${l} (exit ${l + 1}), step ${count(from)}${to > from ? ` to ${count(to)}` : ""}`;
    box.style.left = `${(100 * c) / columns.length}%`;
    box.style.width = `${100 / columns.length}%`;
    box.style.bottom = `${(100 * l) / layers}%`;
    box.style.height = `${100 / layers}%`;
    figure.classList.add("pointed");
  }
  for (const type of ["pointermove", "pointerdown"]) field.addEventListener(type, (event) => {
    const { left, top, width, height } = field.getBoundingClientRect();
    go(Math.floor(((event.clientX - left) * columns.length) / width), Math.floor(((top + height - event.clientY) * layers) / height));
  });
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], PageUp: [0, 5], PageDown: [0, -5], Home: [-Infinity, 0], End: [Infinity, 0] };
  figure.addEventListener("keydown", (event) => {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    const [c, l] = at ?? [0, layers - 1], [dc, dl] = at ? MOVES[event.key] : [0, 0];
    go(c + dc, l + dl);
  });
  return figure;
}
