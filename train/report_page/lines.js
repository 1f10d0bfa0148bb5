const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (value !== null && value !== undefined) node.setAttribute(name, value);
  node.append(...children.flat(Infinity).filter(Boolean));
  return node;
}

/** Three or four digits: 0.267, 97.6, 1,234, 2.5e+9. */
function short(v) {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 1000 && size < 1e6) return count(Math.round(v));
  return size >= 1e-3 && size < 1000 ? String(Number(v.toPrecision(3))) : v.toExponential(1).replace(".0e", "e");
}

const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]];
/** Steps or tokens on an axis: 250, 20k, 1.5B. */
function big(v) {
  const [size, unit] = UNITS.find(([n]) => v >= n) ?? [1, ""];
  return unit ? `${Number((v / (unit === "k" ? 1000 : size)).toPrecision(3))}${unit}` : count(Number(v.toPrecision(4)));
}

function linearTicks(lo, hi, most) {
  const rough = (hi - lo || 1) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(lo, hi, most) {
  if (hi / lo < 8) return linearTicks(lo, hi, most).filter((v) => v > 0);
  const ticks = [], decades = Math.log10(hi / lo);
  const marks = decades < 3 ? [1, 2, 5] : [1], every = Math.max(1, Math.ceil(decades / most));
  for (let e = Math.floor(Math.log10(lo)); e <= Math.log10(hi); e += every) {
    for (const m of marks) if (m * 10 ** e >= lo * 0.999 && m * 10 ** e <= hi * 1.001) ticks.push(m * 10 ** e);
  }
  return ticks;
}

/** Whole numbers, such as layers: the last one, the first one, and as many evenly between them as there is room for. */
function wholeTicks(lo, hi, most) {
  const every = Math.ceil((hi - lo + 1) / most), ticks = [];
  for (let v = hi; v > lo + every / 2; v -= every) ticks.unshift(v);
  return [lo, ...ticks];
}

const HEIGHT = 250, LEFT = 50, RIGHT = 12, TOP = 12, BOTTOM = 34;

/** [least, greatest] over all lines, as far as an axis can have them. */
function extent(lines, key, log) {
  let lo = Infinity, hi = -Infinity;
  for (const line of lines) for (const v of line[key]) if (v !== null && (!log || v > 0)) {
    if (v < lo) lo = v;
    if (v > hi) hi = v;
  }
  return lo > hi ? null : [lo, hi];
}

/** Where values lie: a function, and its ticks. */
function scale([lo, hi], from, to, log, most) {
  if (log) {
    const pad = (hi / lo) ** 0.04 || 1;
    const [a, b] = lo === hi ? [lo / 1.1, hi * 1.1] : [lo / pad, hi * pad];
    const at = (v) => from + ((to - from) * Math.log(v / a)) / Math.log(b / a);
    return { at, ticks: logTicks(a, b, most) };
  }
  const at = (v) => from + ((to - from) * (v - lo)) / (hi - lo);
  return { at, ticks: linearTicks(lo, hi, most) };
}

/**
 * Lines over steps, tokens or depth. Point at it, tap it, or move along with the arrow keys.
 *
 * lines: {name, x, y (null: no point), colour, dash, width, faint}; faint ones are drawn and not told of.
 * options: title, xName, xFormat, format (of y), log, most (of the axis), whole (x has no fractions),
 * ends ({x, y}, the same for several charts), marks ({x, kind, what}), note.
 */
function lineChart(id, lines, options) {
  const { title, xName, xFormat = big, format = short, marks = [], note = "" } = options;
  const readout = el("span", { class: "readout", "aria-live": "polite" }, note);
  const canvas = el("div", { class: "canvas" });
  const figure = el("figure", { class: "chart", id, tabindex: "0", role: "group", "aria-label": `${title}: ${lines.length} lines, arrow keys move along them` },
    el("figcaption", null, el("b", null, title), " ", readout), canvas);
  const told = lines.map((line, i) => i).filter((i) => !lines[i].faint && lines[i].y.some((v) => v !== null));
  const yOf = extent(lines, "y", false);
  if (!yOf) {
    canvas.append(el("p", { class: "note" }, "Nothing here yet."));
    return figure;
  }
  const log = options.log && (options.ends?.y ?? yOf)[0] > 0;
  let at = null, place = () => {};

  function draw() {
    const width = Math.max(240, canvas.clientWidth || 600);
    let [lo, hi] = options.ends?.y ?? yOf;
    if (!log) {
      const pad = (hi - lo) * 0.05 || Math.abs(hi) * 0.1 || 1;
      [lo, hi] = [lo >= 0 && lo < (hi - lo) * 0.5 ? 0 : lo - pad, Math.min(hi + pad, options.most ?? Infinity)];
    }
    let [first, last] = options.ends?.x ?? extent(lines, "x", false);
    if (first === last) [first, last] = [first - 1, last + 1];
    const y = scale([lo, hi], HEIGHT - BOTTOM, TOP, log, 5);
    const x = scale([first, last], LEFT, width - RIGHT, false, Math.max(2, Math.floor(width / 65)));
    const grid = [
      ...y.ticks.map((v) => [svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y.at(v), y2: y.at(v) }),
        svg("text", { x: LEFT - 6, y: y.at(v) + 4, "text-anchor": "end" }, format(v))]),
      ...(options.whole ? wholeTicks(first, last, width / 40) : x.ticks).map((v) => [svg("line", { class: "grid", x1: x.at(v), x2: x.at(v), y1: TOP, y2: HEIGHT - BOTTOM }),
        svg("text", { x: x.at(v), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, xFormat(v))]),
      svg("text", { class: "axis", x: width - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, xName),
    ];
    const cursor = svg("g", { class: "cursor" });
    canvas.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
      grid, marks.filter((m) => m.x >= first && m.x <= last).map((m) => mark(m, x.at(m.x))), lines.map((line) => path(line, x.at, y.at, log)), cursor));
    place = () => {
      if (!at) return cursor.replaceChildren();
      const line = lines[at.line], px = x.at(line.x[at.point]), py = y.at(line.y[at.point]);
      cursor.replaceChildren(svg("line", { x1: px, x2: px, y1: TOP, y2: HEIGHT - BOTTOM }), svg("circle", { cx: px, cy: py, r: 4.5, fill: line.colour }));
      return undefined;
    };
    place();
    figure.nearest = (clientX, clientY) => {
      const box = canvas.getBoundingClientRect(), px = ((clientX - box.left) * width) / box.width, py = ((clientY - box.top) * width) / box.width;
      let best = Infinity, found = null;
      for (const i of told) lines[i].x.forEach((v, j) => {
        if (lines[i].y[j] === null || (log && lines[i].y[j] <= 0)) return;
        const distance = (x.at(v) - px) ** 2 + (y.at(lines[i].y[j]) - py) ** 2;
        if (distance < best) [best, found] = [distance, { line: i, point: j }];
      });
      return found;
    };
  }

  function go(to) {
    at = to;
    const line = lines[at.line], x = line.x[at.point];
    const here = marks.filter((m) => m.x === x && (m.run ?? line.run) === line.run).map((m) => m.what);
    readout.textContent = [`${line.name}: ${format(line.y[at.point])} at ${xName} ${count(x)}`, ...here].join("; ");
    place();
  }

  for (const type of ["pointermove", "pointerdown"]) canvas.addEventListener(type, (event) => {
    const to = figure.nearest?.(event.clientX, event.clientY);
    if (to) go(to);
  });
  figure.addEventListener("keydown", (event) => {
    const to = told.length ? step(lines, told, at, event.key) : null;
    if (!to) return;
    event.preventDefault();
    go(to);
  });
  figure.draw = draw;
  return figure;
}

const ALONG = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
const ACROSS = { ArrowUp: 1, ArrowDown: -1 };

/** The point to which a key leads; null for other keys. */
function step(lines, told, at, key) {
  if (!(key in ALONG) && !(key in ACROSS)) return null;
  if (!at) return { line: told.at(-1), point: lines[told.at(-1)].y.findLastIndex((v) => v !== null) };
  if (key in ACROSS) {
    const line = told[Math.min(told.length - 1, Math.max(0, told.indexOf(at.line) + ACROSS[key]))];
    const x = lines[at.line].x[at.point];
    let best = null;
    lines[line].x.forEach((v, j) => { if (lines[line].y[j] !== null && (best === null || Math.abs(v - x) < Math.abs(lines[line].x[best] - x))) best = j; });
    return { line, point: best };
  }
  const points = lines[at.line].y.map((v, j) => (v === null ? -1 : j)).filter((j) => j >= 0);
  const next = Math.min(points.length - 1, Math.max(0, points.indexOf(at.point) + ALONG[key]));
  return { line: at.line, point: points[next] };
}

function path(line, x, y, log) {
  const whole = line.y.map((v, j) => (v === null || (log && v <= 0) ? null : [x(line.x[j]), y(v)]));
  let d = "", pen = "M";
  for (const point of whole) {
    if (!point) pen = "M";
    else { d += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`; pen = "L"; }
  }
  const points = whole.filter(Boolean);
  const dots = !line.faint && points.length <= 40 ? points.map(([cx, cy]) => svg("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: line.width > 2 ? 2.6 : 1.9, fill: line.colour })) : [];
  return svg("g", { class: line.faint ? "line faint" : "line" }, svg("path", { d, stroke: line.colour, "stroke-width": line.width ?? 1.5, "stroke-dasharray": line.dash || null }), dots);
}

function mark({ kind, what, colour }, px) {
  const title = svg("title", null, what), low = HEIGHT - BOTTOM;
  const d = { skipped: `M${px - 4} ${TOP - 10}h8l-4 8z`, checkpoint: `M${px} ${low}v-7` }[kind] ?? `M${px} ${TOP}V${low}`;
  const node = svg("path", { class: `mark ${kind}`, d }, title);
  if (colour) node.style[kind === "skipped" ? "fill" : "stroke"] = colour;
  return node;
}

/** A piece of a line, for legends. */
function sample(colour, dash) {
  return svg("svg", { class: "sample", viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" },
    svg("path", { d: "M1 6H25", stroke: colour, "stroke-width": 3, "stroke-dasharray": dash || null, fill: "none" }));
}

/** Draw the charts that stand on the page, and again when their width changes. */
const watcher = new ResizeObserver((entries) => entries.forEach(({ target, contentRect }) => {
  if (target.drawnAt !== contentRect.width) { target.drawnAt = contentRect.width; target.draw(); }
}));
function show(root, ...nodes) {
  root.replaceChildren(...nodes.flat());
  root.querySelectorAll(".chart").forEach((figure) => {
    if (!figure.draw) return;
    figure.drawnAt = figure.clientWidth;
    figure.draw();
    watcher.observe(figure);
  });
}
