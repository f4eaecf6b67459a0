// What the charts of an evolution show, from its trials.

import { bounds } from "./chart.js";
import { number } from "./dom.js";

const confirms = (trial) => trial.origin.kind === "confirm"; // its length may be another, so it is no rival of the others
const ended = (trials) => trials.filter((each) => each.fitness !== null && each.state === "finished");
const told = (trials) => ended(trials).filter((each) => !confirms(each));

const about = (trial) => `Trial ${trial.id}: ${trial.fitness === null ? trial.state : `fitness ${number(trial.fitness)}`}`;

/** The best fitness so far, by trial. */
export function bestSoFar(trials) {
  const points = [];
  let best = -Infinity;
  for (const each of told(trials)) {
    if (each.fitness > best) {
      best = each.fitness;
      points.push({ x: each.id, y: best });
    }
  }
  const last = trials.at(-1);
  if (points.length && last) points.push({ x: last.id, y: best });
  return points;
}

/** Fitness over trials: each a dot, the best so far a line, failures along the foot. */
export function fitnessChart(run, pick) {
  const finished = told(run.trials);
  const cut = run.trials.filter((each) => each.state === "stopped" && each.fitness !== null);
  const failed = run.trials.filter((each) => each.state === "failed");
  const point = (each) => ({ x: each.id, y: each.fitness, text: about(each), key: each.id });
  const confirming = ended(run.trials).filter(confirms);
  const y = bounds([...finished, ...cut, ...confirming].map((each) => each.fitness));
  const winner = run.winner && run.trials.find((each) => each.id === run.winner.trial && each.fitness !== null);
  const start = finished.filter((each) => each.id === 0);
  return {
    title: "Fitness over trials",
    bare: true,
    sentence: fitnessSentence(run, finished, failed, cut, confirming),
    height: 290,
    x: { label: "trial, in the order they were asked", whole: true, low: -0.5, high: Math.max(run.trials.length - 0.5, 1) },
    y: { label: "fitness", ...y },
    pick,
    series: [
      { name: "trial", look: "dots", shape: "dot", points: finished.map(point) },
      { name: "ended early", look: "faint", shape: "dot", points: cut.map(point) },
      { name: "confirming", look: "dots", shape: "plus", points: confirming.map(point) },
      { name: "failed", look: "bad", shape: "cross", points: failed.map((each) => ({ ...point(each), y: y.low, text: `Trial ${each.id} failed: ${each.reason ?? "no reason known"}`.slice(0, 140) })) },
      { name: "best so far", look: "best", step: true, points: bestSoFar(run.trials) },
      { name: "start", look: "start", shape: "ring", points: start.map(point) },
      { name: "winner", look: "winner", shape: "diamond", points: winner ? [point(winner)] : [] },
    ],
  };
}

function fitnessSentence(run, finished, failed, cut, confirming) {
  if (!finished.length) return "No trial has finished yet.";
  const parts = [`${finished.length} trials finished`, cut.length && `${cut.length} ended early`, confirming.length && `${confirming.length} confirmed the best`, failed.length && `${failed.length} failed`].filter(Boolean);
  const best = run.best ? ` The best, trial ${run.best.trial}, has ${number(run.best.fitness)}` : "";
  const first = run.start_fitness === null ? "." : `; the start had ${number(run.start_fitness)}.`;
  return `${parts.join(", ")}.${best}${best && first} A click on a dot adds its learning curve below.`;
}

/** One gene against fitness. */
export function geneChart(run, gene, pick) {
  const numeric = gene.choices === null;
  const place = numeric ? (value) => value : (value) => gene.choices.indexOf(value);
  const finished = told(run.trials).filter((each) => each.config[gene.name] !== undefined);
  const point = (each) => ({ x: place(each.config[gene.name]), y: each.fitness, text: `${about(each)}, ${gene.name} ${number(each.config[gene.name])}`, key: each.id });
  const x = numeric ? { low: gene.low, high: gene.high, log: gene.log && gene.low > 0 }
    : { low: -0.5, high: gene.choices.length - 0.5, ticks: gene.choices.map((each, at) => [at, String(each).slice(0, 14)]) };
  if (x.low === x.high) x.high = x.low + 1;
  const winner = run.winner && finished.find((each) => each.id === run.winner.trial);
  return {
    title: gene.name,
    sentence: geneSentence(run, gene),
    height: 190,
    x: { label: `${gene.name}${x.log ? ", logarithmic" : ""}`, ...x },
    y: { label: "fitness", ...bounds(finished.map((each) => each.fitness)) },
    pick,
    series: [
      { look: "dots", shape: "dot", points: finished.map(point) },
      { look: "start", shape: "ring", points: finished.filter((each) => each.id === 0).map(point) },
      { look: "winner", shape: "diamond", points: winner ? [point(winner)] : [] },
    ],
  };
}

function geneSentence(run, gene) {
  const won = run.winner?.config[gene.name];
  const began = run.trials[0]?.config[gene.name] ?? gene.start;
  const range = gene.choices ? `one of ${gene.choices.length}` : `${number(gene.low)} to ${number(gene.high)}`;
  return `Start ${number(began)}${won === undefined ? "" : `, winner ${number(won)}`}; ${range}.`;
}

/** Metrics that learning curves hold, the fitness first. */
export function metricsOf(curves) {
  const names = new Set(["fitness"]);
  for (const { curve } of curves) for (const point of curve) Object.keys(point.metrics).forEach((name) => names.add(name));
  return [...names];
}

/** Learning curves of some trials. */
export function curvesChart(curves, metric) {
  const series = curves.map(({ id, curve }, place) => ({
    name: `trial ${id}`,
    look: `c${place % 6}`,
    points: curve.filter((each) => typeof each.metrics[metric] === "number")
      .map((each) => ({ x: each.epoch + 1, y: each.metrics[metric], text: `Trial ${id}, epoch ${each.epoch + 1}: ${metric} ${number(each.metrics[metric])}` })),
  }));
  const dots = series.filter((each) => each.points.length === 1).map((each) => ({ ...each, name: "", shape: "dot" }));
  const all = series.flatMap((each) => each.points);
  const last = series.filter((each) => each.points.length).map((each) => `${each.name} ends at ${number(each.points.at(-1).y)}`);
  return {
    title: `Learning curves: ${metric}`,
    bare: true,
    sentence: last.length ? `${metric} after each epoch: ${last.slice(0, 4).join(", ")}${last.length > 4 ? " …" : "."}` : "These trials have told no such metric yet.",
    legend: true,
    x: { label: "epoch", whole: true, low: 1, high: Math.max(2, ...all.map((each) => each.x)) },
    y: { label: metric, ...bounds(all.map((each) => each.y)) },
    series: [...series, ...dots],
  };
}
