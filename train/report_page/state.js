/** What the reader has chosen, kept in the address after the #: a page that is loaded anew is as it was. */
const state = new URLSearchParams(location.hash.slice(1));
const chosen = (key, otherwise) => state.get(key) ?? otherwise;

function remember(key, value, otherwise) {
  if (value === otherwise) state.delete(key);
  else state.set(key, value);
  history.replaceState(null, "", `#${state}`);
}

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const ago = (ms) => {
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
  return seconds < 120 ? `${seconds} s ago` : seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
};

/** The line that says how old the page is, and loads it anew while it is being rewritten. */
function freshness() {
  const line = el("p", { class: "note", role: "status" });
  if (!data.refresh) {
    if (data.runs.every((run) => run.finished)) return el("span");
    line.append("This page stands still; refresh=30 in the command rewrites it every 30 seconds, and it reloads itself.");
    return line;
  }
  let due = false;
  const tell = () => {
    const late = Date.now() - data.written > 1000 * (3 * data.refresh + 10);
    line.textContent = `Written at ${clock(data.written)}, ${ago(data.written)}; rewritten every ${data.refresh} s${late ? ". It is late: the command that rewrites it may have ended" : ""}.`;
  };
  const load = () => {
    if (chosen("stay", "")) return;
    due = document.hidden;
    if (due) return;
    remember("focus", document.activeElement?.id || "", "");
    location.reload();
  };
  tell();
  setInterval(tell, 1000);
  setInterval(load, 1000 * data.refresh);
  addEventListener("visibilitychange", () => due && load());
  return el("div", { class: "controls fresh" }, line,
    toggle("Reload by itself", "reload", !chosen("stay", ""), (on) => remember("stay", on ? "" : "1", "")));
}

/** The control that had the focus before the page was loaded anew has it again. */
function restoreFocus() {
  document.getElementById(chosen("focus", ""))?.focus({ preventScroll: true });
  remember("focus", "", "");
}
