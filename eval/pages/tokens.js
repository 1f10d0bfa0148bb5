const DRAWN = { "\n": "↵", "\t": "⇥" };

/** A token as eval/pages/token_display.py writes it: text and marks in turn. In running text a newline also breaks the line. */
function token(shown, inText) {
  const out = document.createDocumentFragment();
  if (!shown.length) out.append(el("span", { class: "none" }));
  shown.forEach((part, i) => {
    if (i % 2 === 0) out.append(part);
    else if (part === " ") out.append(el("span", { class: "space" }, " "));
    else if (part in DRAWN) {
      out.append(el("span", { class: "drawn" }, DRAWN[part]));
      if (inText) out.append(part);
    } else out.append(el("span", { class: "box" }, part));
  });
  return out;
}

/** A token within a sentence. */
const quoted = (shown) => el("span", { class: "token" }, token(shown, false));
