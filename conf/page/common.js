const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");

/** An element; children are nodes or text, never markup. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const percent = (p) => (p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);
const count = (n) => n.toLocaleString("en");
const speed = (n) => (n < 10 ? n.toFixed(1) : count(Math.round(n)));

function totals(entries) {
  return el("dl", { class: "totals" }, Object.entries(entries)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value))));
}

/** Radio buttons; `choose` gets the value. One is chosen: the first, unless `chosen` names another. */
function choice(title, name, options, choose, chosen = Object.keys(options)[0]) {
  return el("div", { class: "choice", role: "radiogroup", "aria-label": title }, el("span", null, title), Object.entries(options).map(([value, text]) => {
    const input = el("input", { type: "radio", name, id: `${name}-${value}`, value, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    return el("label", null, input, text);
  }));
}

/** A check box that adds or removes a class. */
function toggle(text, id, checked, set) {
  const input = el("input", { type: "checkbox", id, checked });
  input.addEventListener("change", () => set(input.checked));
  return el("label", null, input, text);
}

/** Tell of what is pointed at, tapped, or reached with the keyboard: one of the items is in the tab order at a time. */
function explore(root, panel, describe, neighbour) {
  let at = null;
  function show(item) {
    if (item === at) return;
    at?.classList.remove("at");
    at?.setAttribute("tabindex", "-1");
    at = item;
    at.classList.add("at");
    at.setAttribute("tabindex", "0");
    panel.replaceChildren(...describe(at));
  }
  const item = (event) => event.target.closest?.("[data-at]");
  for (const type of ["pointerover", "focusin", "click"]) {
    root.addEventListener(type, (event) => item(event) && show(item(event)));
  }
  root.addEventListener("keydown", (event) => {
    const next = item(event) && neighbour(item(event), event.key);
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  root.querySelector("[data-at]")?.setAttribute("tabindex", "0");
}
