// Charts in SVG, drawn at the width they have, with axes, units and a sentence. A series is one path however many points it holds, so thousands of trials cost little.

import { el, freshId, number, svg } from "./dom.js";

/** Ticks at round places of a range, at most about `many`. */
export function ticks(low, high, many = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / many;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let at = first; at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function powers(low, high) {
  const found = [];
  const [from, to] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.max(1, Math.ceil((to - from + 1) / 5));
  for (let each = from; each <= to; each += every) found.push(10 ** each);
  return found.length > 1 ? found : [low, high];
}

function scale(axis, from, to) {
  const turn = axis.log ? Math.log : (value) => value;
  const [low, high] = [turn(axis.low), turn(axis.high)];
  const span = high - low || 1;
  return (value) => from + ((turn(value) - low) / span) * (to - from);
}

/** Bounds of values with a little air; of nothing, 0 to 1. */
export function bounds(values, { air = 0.06, zero = false } = {}) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return { low: 0, high: 1 };
  if (zero) low = Math.min(low, 0);
  const span = high - low || Math.abs(high) || 1;
  return { low: zero && low === 0 ? 0 : low - span * air, high: high + span * air };
}

const SHAPES = {
  dot: (x, y) => `M${x} ${y}h0`,
  cross: (x, y) => `M${x - 3.5} ${y - 3.5}l7 7m-7 0l7-7`,
  diamond: (x, y) => `M${x} ${y - 7}l6 7l-6 7l-6-7z`,
  ring: (x, y) => `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0-10 0`,
  plus: (x, y) => `M${x - 5} ${y}h10m-5-5v10`,
};

function pathOf(series, x, y) {
  const round = (value) => Math.round(value * 10) / 10;
  const places = series.points.map((point) => [round(x(point.x)), round(y(point.y))]);
  if (series.shape) return places.map(([px, py]) => SHAPES[series.shape](px, py)).join("");
  return places.map(([px, py], place) => (place === 0 ? `M${px} ${py}` : series.step ? `H${px}V${py}` : `L${px} ${py}`)).join("");
}

/**
 * A figure that draws itself anew when its width changes.
 *
 * @param {object} first what `show` takes
 * @returns {HTMLElement & {show: (spec: object) => void}} `show` takes {title, bare, sentence, x, y, series, height,
 *   pick, legend, under}, bare where the section says the title already;
 *   an axis is {label, low, high, log, ticks}; a series {name, look, points: [{x, y, text}], shape | step, key}:
 *   `look` is a class of the style sheet, points without text are not told under the pointer
 */
export function chart(first) {
  let spec = first;
  let drawn = 0;
  const plot = el("div", { class: "plot" });
  const title = el("h3");
  const caption = el("figcaption");
  const legend = el("ul", { class: "legend", "aria-label": "Legend" });
  const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const figure = el("figure", { class: "chart" }, title, plot, legend, caption);
  const draw = () => {
    drawn = plot.clientWidth;
    if (drawn > 0) paint(plot, tip, spec, drawn);
  };
  figure.show = (next) => {
    spec = next;
    figure.classList.toggle("bare", Boolean(spec.bare));
    title.replaceChildren(spec.title);
    caption.replaceChildren(spec.sentence ?? "");
    const named = spec.series.filter((each) => each.name && each.points.length);
    legend.hidden = named.length < 2 && !spec.legend;
    legend.replaceChildren(...named.map(key));
    draw();
  };
  new ResizeObserver(() => {
    if (plot.clientWidth !== drawn) draw();
  }).observe(plot);
  figure.show(spec);
  return figure;
}

function key(series) {
  const mark = series.shape ? SHAPES[series.shape](10, 7) : "M0 7h20";
  const drawing = svg("svg", { width: 20, height: 14, "aria-hidden": "true" }, svg("path", { class: `${series.shape ? "points" : "line"} ${series.shape ?? ""} ${series.look}`, d: mark }));
  return el("li", null, drawing, series.name);
}

function paint(plot, tip, spec, width) {
  const height = spec.height ?? 260;
  const yTicks = spec.y.ticks ?? ticks(spec.y.low, spec.y.high, height < 180 ? 3 : 5).map((value) => [value, number(value, 4)]);
  const left = 22 + 7 * Math.max(...yTicks.map(([, text]) => text.length), 2);
  const edge = { left, right: width - 20, top: 10, bottom: height - 40 };
  const [x, y] = [scale(spec.x, edge.left, edge.right), scale(spec.y, edge.bottom, edge.top)];
  const xTicks = spec.x.ticks ?? (spec.x.log ? powers(spec.x.low, spec.x.high) : ticks(spec.x.low, spec.x.high, Math.max(2, Math.floor(width / 95)))
    .filter((value) => !spec.x.whole || Number.isInteger(value))).map((value) => [value, number(value, 4)]);
  const ids = [freshId("chart"), freshId("chart")];
  const ring = svg("circle", { class: "near", r: 7, visibility: "hidden" });
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": ids.join(" ") },
    svg("title", { id: ids[0] }, spec.title), svg("desc", { id: ids[1] }, spec.sentence ?? ""),
    yTicks.map(([value, text]) => [
      svg("line", { class: "grid", x1: edge.left, x2: edge.right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick end", x: edge.left - 6, y: y(value) + 4 }, text)]),
    svg("line", { class: "axis", x1: edge.left, x2: edge.right, y1: edge.bottom, y2: edge.bottom }),
    xTicks.map(([value, text]) => svg("text", { class: "tick middle", x: x(value), y: edge.bottom + 16 }, text)),
    svg("text", { class: "label middle", x: (edge.left + edge.right) / 2, y: height - 6 }, spec.x.label),
    svg("text", { class: "label middle", transform: `translate(12 ${(edge.top + edge.bottom) / 2}) rotate(-90)` }, spec.y.label),
    spec.under?.(x, y) ?? [],
    spec.series.filter((each) => each.points.length).map((each) => svg("path", { class: `${each.shape ? "points" : "line"} ${each.shape ?? ""} ${each.look} ${each.points.length > 600 ? "many" : ""}`, d: pathOf(each, x, y) })),
    ring);
  plot.replaceChildren(drawing, tip);
  tip.hidden = true;
  listen(plot, drawing, tip, ring, spec, { x, y, width });
}

function listen(plot, drawing, tip, ring, spec, { x, y, width }) {
  const told = spec.series.flatMap((series) => series.points.filter((point) => point.text).map((point) => ({ point, px: x(point.x), py: y(point.y) })));
  if (!told.length) return;
  const nearest = (event) => {
    const box = drawing.getBoundingClientRect();
    let [found, best] = [null, 40 ** 2];
    for (const each of told) {
      const far = (each.px - event.clientX + box.left) ** 2 + (each.py - event.clientY + box.top) ** 2;
      if (far < best) [found, best] = [each, far];
    }
    return found;
  };
  const hide = () => {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  };
  drawing.addEventListener("pointermove", (event) => {
    const found = nearest(event);
    if (!found) return hide();
    tip.hidden = false;
    tip.textContent = found.point.text;
    tip.style.left = `${Math.min(Math.max(found.px, 80), width - 80)}px`;
    tip.style.top = `${found.py}px`;
    tip.classList.toggle("below", found.py < 60);
    ring.setAttribute("cx", found.px);
    ring.setAttribute("cy", found.py);
    ring.setAttribute("visibility", "visible");
  });
  drawing.addEventListener("pointerleave", hide);
  if (spec.pick) {
    drawing.addEventListener("click", (event) => {
      const found = nearest(event);
      if (found && found.point.key !== undefined) spec.pick(found.point.key);
    });
  }
}
