// The table of trials: sorted, filtered, and a page at a time, so thousands of rows cost what fifty do.

import { badge, choice, duration, el, number } from "./dom.js";

const PAGE = 50;

function columnsOf(run) {
  const plain = (label, of, show = number, title) => ({ label, of, show, title, digits: show === number || show === duration });
  return [
    plain("trial", (each) => each.id),
    plain("state", (each) => each.state, badge),
    plain("fitness", (each) => each.fitness),
    plain("epochs", (each) => each.epoch),
    plain("time", (each) => each.seconds, duration, "of training"),
    plain("from", (each) => each.origin.kind ?? "", (kind) => String(kind)),
    ...run.genes.map((gene) => plain(gene.name, (each) => each.config[gene.name])),
  ];
}

function compare(a, b) {
  // What is missing comes last, whichever way it is sorted.
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

const missing = (value) => value === null || value === undefined;

/**
 * The table and its controls.
 *
 * @param {{picked: Set<number>, pick: (id: number) => void}} choices which trials have their curve drawn
 * @returns {HTMLElement & {show: (run: object) => void}}
 */
export function trialsTable({ picked, pick }) {
  let run = { trials: [], genes: [] };
  let columns = [];
  let shape = "";
  let sort = { by: "trial", down: true };
  let page = 0;
  const words = el("input", { type: "search", "aria-label": "Find trials by number, origin or reason", placeholder: "Number, origin or reason" });
  const state = choice([["all", "All states"], ["running"], ["finished"], ["failed"], ["stopped"]], "all", { "aria-label": "State of trials" });
  const head = el("tr");
  const body = el("tbody");
  const counted = el("span", { class: "small soft", role: "status" });
  const turn = (by) => () => { page += by; draw(); };
  const [back, on] = [el("button", { type: "button", onclick: turn(-1) }, "Earlier rows"), el("button", { type: "button", onclick: turn(1) }, "Further rows")];
  const table = el("table", null, el("caption", { class: "unseen" }, "Trials: a button in the head of a column sorts by it."), el("thead", null, head), body);
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of trials" }, table);
  const root = el("div", null, el("div", { class: "row filters" }, words, state), scroll, el("div", { class: "row" }, back, on, counted));
  const again = () => { page = 0; draw(); };
  words.addEventListener("input", again);
  state.addEventListener("change", again);

  function rows() {
    const wanted = words.value.trim().toLowerCase();
    const column = columns.find((each) => each.label === sort.by) ?? columns[0];
    const fits = (each) => (state.value === "all" || each.state === state.value)
      && (!wanted || String(each.id) === wanted || `${each.origin.kind ?? ""} ${each.reason ?? ""}`.toLowerCase().includes(wanted));
    return run.trials.filter(fits).sort((a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a.id - b.id;
      return (sort.down ? -1 : 1) * compare(x, y) || a.id - b.id;
    });
  }

  function heads() {
    head.replaceChildren(el("th", { scope: "col" }, el("span", { class: "pad" }, "curve")), ...columns.map((column) => {
      const button = el("button", { type: "button", title: column.title }, column.label);
      button.addEventListener("click", () => {
        sort = { by: column.label, down: sort.by === column.label ? !sort.down : true };
        for (const each of head.children) each.removeAttribute("aria-sort");
        button.parentElement.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
        again();
      });
      return el("th", { scope: "col", class: column.digits && "num", "aria-sort": sort.by === column.label && (sort.down ? "descending" : "ascending") }, button);
    }));
  }

  function rowOf(each) {
    const box = el("input", { type: "checkbox", "aria-label": `Draw the curve of trial ${each.id}` });
    box.checked = picked.has(each.id);
    box.addEventListener("change", () => pick(each.id));
    const row = el("tr", { class: run.winner?.trial === each.id && "won" }, el("td", null, box));
    row.dataset.trial = each.id;
    for (const column of columns) {
      const value = column.of(each);
      const cell = el(column.label === "trial" ? "th" : "td", column.label === "trial" ? { scope: "row" } : { class: column.digits && "num" }, missing(value) ? "–" : column.show(value));
      if (column.label === "state" && each.reason) cell.append(el("span", { class: "reason" }, each.reason));
      row.append(cell);
    }
    return row;
  }

  function draw() {
    const found = rows();
    page = Math.min(Math.max(page, 0), Math.max(Math.ceil(found.length / PAGE) - 1, 0));
    const seen = found.slice(page * PAGE, (page + 1) * PAGE);
    const focused = document.activeElement?.closest?.("tr")?.dataset.trial;
    const inside = body.contains(document.activeElement);
    body.replaceChildren(...seen.map(rowOf));
    if (inside && focused) body.querySelector(`tr[data-trial="${focused}"] input`)?.focus();
    [back.disabled, on.disabled] = [page === 0, (page + 1) * PAGE >= found.length];
    back.hidden = on.hidden = found.length <= PAGE;
    const which = found.length > PAGE ? `${page * PAGE + 1} to ${page * PAGE + seen.length} of ${found.length}` : `${found.length}`;
    counted.textContent = found.length === run.trials.length ? `${which} trials` : `${which} trials match, of ${run.trials.length}`;
  }

  root.show = (next) => {
    run = next;
    const genes = run.genes.map((gene) => gene.name).join();
    if (genes !== shape || !columns.length) {
      [shape, columns] = [genes, columnsOf(run)];
      heads();
    }
    draw();
  };
  return root;
}
