"""The script of the report: sorting of tables, brushing of the chart of all genes. The page is whole without it."""

# Rows without a value in the column stay last in both directions.
_SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const read = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.v ?? cell.textContent, number = Number(text);
    return text === "" || text === "\\u2013" ? null : Number.isNaN(number) ? text : number;
  };
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const next = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first ?? "ascending";
    const sign = next === "ascending" ? 1 : -1;
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    const rows = [...body.rows].map(row => [read(row, column), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null)
      : sign * (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1));
    body.append(...rows.map(pair => pair[1]));
  }));
}
"""

# A line's places on the axes are the y of its path, in thousandths from above.
_BRUSHING = """
for (const figure of document.querySelectorAll(".parallel")) {
  const drawing = figure.querySelector(".plot > svg"), bars = figure.querySelector(".brushes");
  const axis = bars.querySelector("select"), [low, high] = bars.querySelectorAll("input");
  const said = bars.querySelector("output"), brushes = new Map(), count = axis.options.length;
  const lines = [...drawing.querySelectorAll(".lines path")].map(path => [path,
    [...path.getAttribute("d").matchAll(/[ML][\\d.]+ ([\\d.]+)/g)].map(found => 1 - found[1] / 1000)]);
  const show = () => {
    let kept = 0;
    for (const [path, places] of lines) {
      const inside = [...brushes].every(([gene, [from, to]]) => places[gene] >= from && places[gene] <= to);
      path.classList.toggle("out", !inside);
      kept += inside;
    }
    const names = [...brushes.keys()].map(gene => axis.options[gene].text);
    said.textContent = brushes.size ? `${kept} of ${lines.length} trials, by ${names.join(", ")}` : "";
    drawing.querySelectorAll(".brush").forEach(old => old.remove());
    for (const [gene, [from, to]] of brushes) {
      const bar = document.createElementNS(drawing.namespaceURI, "rect"), tall = drawing.clientHeight;
      const at = {x: `${100 * gene / (count - 1)}%`, y: tall * (1 - to), width: 12,
        height: Math.max(tall * (to - from), 2), transform: "translate(-6)", class: "brush"};
      Object.entries(at).forEach(([name, value]) => bar.setAttribute(name, value));
      drawing.append(bar);
    }
    const [from, to] = brushes.get(axis.selectedIndex) ?? [0, 1];
    low.value = Math.round(100 * from);
    high.value = Math.round(100 * to);
  };
  const set = (gene, one, other) => {
    const from = Math.max(Math.min(one, other), 0), to = Math.min(Math.max(one, other), 1);
    from <= 0 && to >= 1 ? brushes.delete(gene) : brushes.set(gene, [from, to]);
    show();
  };
  axis.addEventListener("change", show);
  for (const end of [low, high]) {
    end.addEventListener("input", () => set(axis.selectedIndex, low.value / 100, high.value / 100));
  }
  bars.querySelector("button").addEventListener("click", () => { brushes.clear(); show(); });
  let began = null;
  const place = event => {
    const box = drawing.getBoundingClientRect();
    return [Math.round((count - 1) * (event.clientX - box.left) / box.width),
      1 - (event.clientY - box.top) / box.height];
  };
  drawing.addEventListener("pointerdown", event => {
    const [gene, at] = place(event);
    if (gene < 0 || gene >= count || event.pointerType === "touch") return;
    began = [gene, at];
    axis.selectedIndex = gene;
    drawing.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  drawing.addEventListener("pointermove", event => { if (began) set(began[0], began[1], place(event)[1]); });
  drawing.addEventListener("pointerup", event => {
    if (began && Math.abs(place(event)[1] - began[1]) < 0.01) { brushes.delete(began[0]); show(); }
    began = null;
  });
  bars.hidden = false;
}
"""

SCRIPT = _SORTING + _BRUSHING
