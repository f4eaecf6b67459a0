// The picture of box shapes: how many boxes have which width and height, with the anchors drawn on it.

import { chart } from "./chart.js";
import { number, share, svg } from "./dom.js";

/** A figure of a fit's histogram; both axes are logarithms of px, so small boxes are seen beside large ones. */
export function densityChart(result) {
  const { log2_w_edges: across, log2_h_edges: up, counts } = result.density;
  const most = Math.max(1, ...counts.flat());
  const all = [...result.anchors, ...result.model_anchors].flat();
  const [x, y] = [axis("width, px (logarithmic)", across, all.map(([w]) => w)), axis("height, px (logarithmic)", up, all.map(([, h]) => h))];
  const under = (px, py) => counts.flatMap((row, r) => row.map((many, c) => {
    if (!many) return null;
    const [left, right, top, bottom] = [px(across[c]), px(across[c + 1]), py(up[r + 1]), py(up[r])];
    // By the root of the count: rare shapes are what anchors miss, so they must be seen.
    return svg("rect", { class: "cell", x: left, y: top, width: right - left + 0.3, height: bottom - top + 0.3, "fill-opacity": (0.12 + 0.78 * Math.sqrt(many / most)).toFixed(3) });
  }).filter(Boolean));
  const point = (what) => ([w, h]) => ({ x: Math.log2(w), y: Math.log2(h), text: `${what}: ${number(w)} × ${number(h)} px` });
  return chart({
    title: "Box shapes and anchors",
    sentence: `The stronger a cell, the more of the ${result.boxes.toLocaleString("en")} boxes have its width and height. Crosses are the fitted anchors, rings the model's own; the fitted ones reach ${share(result.after.bpr)} of the boxes.`,
    height: 440,
    legend: true,
    x,
    y,
    under,
    series: [
      { name: "model's own", look: "own", shape: "ring", points: result.model_anchors.flat().map(point("model's own")) },
      ...result.anchors.map((level, place) => ({ name: `fitted, stride ${result.strides[place]}`, look: `anchor l${place % 6}`, shape: "plus", points: level.map(point(`fitted, stride ${result.strides[place]}`)) })),
    ],
  });
}

function axis(label, edges, sides) {
  const logs = sides.map((side) => Math.log2(side));
  const low = Math.floor(Math.min(edges[0], ...logs));
  const high = Math.ceil(Math.max(edges.at(-1), ...logs));
  const ticks = [];
  for (let each = low; each <= high; each += high - low > 7 ? 2 : 1) ticks.push([each, number(2 ** each)]);
  return { label, low, high, ticks };
}
