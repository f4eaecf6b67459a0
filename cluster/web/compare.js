// Two evolutions side by side: best so far on one chart, winners, and the settings in which they differ.

import { get, pathOf } from "./api.js";
import { bounds, chart } from "./chart.js";
import { badge, choice, el, field, gain, number } from "./dom.js";
import { bestSoFar } from "./series.js";

/** Fill `view` with the comparison that the address names. */
export async function showCompare(view, { query, signal }) {
  const { evolutions } = await get("/evolutions", signal);
  const pairs = evolutions.map((each) => [each.id, each.id]);
  const [a, b] = ["a", "b"].map((name) => query.get(name) ?? "");
  const selects = [a, b].map((chosen) => choice([["", "Choose …"], ...pairs], chosen));
  const go = () => {
    const [first, second] = selects.map((each) => encodeURIComponent(each.value));
    location.hash = `#/compare?a=${first}&b=${second}`;
  };
  for (const each of selects) each.addEventListener("change", go);
  const place = el("div");
  view.append(el("h1", null, "Compare two evolutions"),
    el("div", { class: "fields" }, field("First", selects[0]), field("Second", selects[1])), place);
  if (evolutions.length < 2) place.append(el("p", { class: "soft" }, "There must be two evolutions to compare."));
  if (!a || !b) return;
  const runs = await Promise.all([a, b].map((id) => get(pathOf(id), signal)));
  place.append(winners(runs), best(runs), differences(runs));
}

function winners(runs) {
  const of = (run) => {
    const { winner } = run;
    const interval = !winner || winner.low === null ? "no interval: one training" : `${number(winner.low)} to ${number(winner.high)}, ${winner.runs} trainings`;
    return el("div", { class: "tile" },
      el("h3", null, el("a", { href: `#/evolution/${encodeURIComponent(run.id)}` }, run.id), " ", badge(run.state)),
      el("b", null, number(winner?.fitness)), el("span", { class: "soft small" }, winner ? `winner, trial ${winner.trial}; ${interval}, ${winner.confirmed ? "confirmed" : "not confirmed"}` : "nothing has won yet"),
      el("p", { class: "small" }, `Start ${number(run.start_fitness)} `, winner && el("span", { class: "gain" }, gain(run.start_fitness, winner.fitness))),
      el("p", { class: "small soft" }, `${run.model} on ${run.data || "?"}, ${run.epochs} epochs, ${run.finished} of ${run.planned} trials finished`));
  };
  return el("section", { "aria-label": "Winners" }, el("h2", null, "Winners"), el("div", { class: "pair" }, runs.map(of)), warning(runs));
}

// Two numbers are only worth comparing where they measure the same.
function warning([a, b]) {
  const differ = ["data", "model", "epochs"].filter((name) => a[name] !== b[name]);
  return differ.length > 0 && el("p", { class: "note" }, `They differ in ${differ.join(" and ")}, so their fitness may not measure the same.`);
}

function best(runs) {
  const series = runs.map((run, place) => ({
    name: run.id,
    look: `c${place}`,
    step: true,
    points: bestSoFar(run.trials).map((point) => ({ ...point, text: `${run.id}, up to trial ${point.x}: best ${number(point.y)}` })),
  }));
  const all = series.flatMap((each) => each.points);
  const [first, second] = runs;
  const ahead = first.best && second.best && (first.best.fitness === second.best.fitness ? "Both have come equally far."
    : `${(first.best.fitness > second.best.fitness ? first : second).id} leads by ${number(Math.abs(first.best.fitness - second.best.fitness), 3)}.`);
  return el("section", { "aria-label": "Best so far" }, el("h2", null, "Best so far"), chart({
    title: "Best fitness so far, by trial",
    bare: true,
    sentence: `The best fitness that each evolution had found after so many trials. ${ahead || "One of them has no finished trial yet."}`,
    height: 300,
    legend: true,
    x: { label: "trial, in the order they were asked", whole: true, low: 0, high: Math.max(1, ...all.map((point) => point.x)) },
    y: { label: "best fitness so far", ...bounds(all.map((point) => point.y)) },
    series,
  }));
}

function differences(runs) {
  const names = [...new Set(runs.flatMap((run) => [...run.genes.map((gene) => gene.name), ...Object.keys(run.winner?.config ?? {})]))];
  const value = (run, name) => run.winner?.config[name];
  const range = (run, name) => {
    const gene = run.genes.find((each) => each.name === name);
    if (!gene) return "not evolved";
    return gene.choices ? `one of ${gene.choices.join(", ")}` : `${number(gene.low)} to ${number(gene.high)}${gene.log ? ", log" : ""}`;
  };
  const differing = names.filter((name) => value(runs[0], name) !== value(runs[1], name) || range(runs[0], name) !== range(runs[1], name));
  const heads = ["gene", ...runs.map((run) => `winner of ${run.id}`), ...runs.map((run) => `range in ${run.id}`)];
  const rows = differing.map((name) => el("tr", null, el("th", { scope: "row" }, name),
    runs.map((run) => el("td", { class: "num" }, number(value(run, name)))), runs.map((run) => el("td", null, range(run, name)))));
  const body = differing.length === 0 ? el("p", { class: "soft" }, "Their winners and ranges are the same.")
    : el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Genes that differ" }, el("table", null, el("caption", { class: "unseen" }, "Genes that differ between the two winners"),
      el("thead", null, el("tr", null, heads.map((each) => el("th", { scope: "col" }, el("span", { class: "pad" }, each))))), el("tbody", null, rows)));
  return el("section", { "aria-label": "Genes that differ" }, el("h2", null, "Genes that differ"), body);
}
