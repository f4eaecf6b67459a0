// Elements and words. Whatever comes from a run, a file or an error is set as text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An element of HTML: `el("p", {class: "soft"}, "text", el("b", null, "more"))`. */
export function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An element of SVG. */
export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

let count = 0;
/** A fresh id, to tie labels to what they label. */
export const freshId = (stem) => `${stem}-${++count}`;

/** A labelled field of a form, with a hint under it. */
export function field(label, control, hint) {
  const id = (control.id ||= freshId("field"));
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return el("div", { class: "field" },
    el("label", { for: id }, label), control, hint && el("p", { id: `${id}-hint`, class: "hint" }, hint));
}

/** A `<select>` of [value, text] pairs. */
export function choice(pairs, chosen, attributes) {
  return el("select", attributes,
    pairs.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text ?? value)));
}

/** Say something to everyone, those who listen included. */
export function say(text, bad = false) {
  const place = document.getElementById("said");
  place.replaceChildren(text);
  place.classList.toggle("bad", bad);
  place.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("shown"), bad ? 12000 : 5000);
}

/** A line that says what went wrong, where it went wrong. */
export const alarm = (text) => el("p", { class: "alarm", role: "alert" }, text);

/**
 * A modal question. Resolves to the button's value, "" where it was closed.
 * @param {string} title
 * @param {Node[]} body
 * @param {[string, string, string?][]} buttons value, text, class; the first is the careful one and has the focus
 */
export function ask(title, body, buttons) {
  return new Promise((resolve) => {
    const id = freshId("dialog");
    const dialog = el("dialog", { "aria-labelledby": id },
      el("form", { method: "dialog" }, el("h2", { id }, title), body,
        el("div", { class: "row end" },
          buttons.map(([value, text, look]) => el("button", { value, class: look, type: "submit" }, text)))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A number in as few digits as say enough. */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    return value.toExponential(2).replace("e+", "e").replace(/\.?0+e/, "e");
  }
  return String(Number(value.toPrecision(digits)));
}

/** A share as per cent. */
export const share = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(2)} %`);

/** A change as per cent with its sign; "" where there is nothing to compare with. */
export function gain(from, to) {
  if (!from || to === null || to === undefined) return "";
  const change = (100 * (to - from)) / Math.abs(from);
  return `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(1)} %`;
}

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** How long ago, with the exact time for those who ask. */
export function ago(unix) {
  if (!unix) return el("span", null, "–");
  const seconds = Math.max(Date.now() / 1000 - unix, 0);
  const date = new Date(unix * 1000);
  let text = date.toLocaleDateString();
  if (seconds < 60) text = "just now";
  else if (seconds < 3600) text = `${Math.floor(seconds / 60)} min ago`;
  else if (seconds < 86400) text = `${Math.floor(seconds / 3600)} h ago`;
  else if (seconds < 14 * 86400) text = `${Math.floor(seconds / 86400)} d ago`;
  return el("time", { datetime: date.toISOString(), title: date.toLocaleString() }, text);
}

/** How an evolution or a trial stands, as a word with a mark: never by colour alone. */
export function badge(state) {
  const marks = { running: "●", finished: "✓", failed: "✕", stopped: "■", interrupted: "!", waiting: "…" };
  return el("span", { class: `badge ${state}` }, el("span", { "aria-hidden": "true" }, marks[state] ?? "", " "), state);
}

/** Save bytes under a name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
