// One evolution: how it stands, what it found, and what can be done with it.

import { get, hasToken, pathOf, post, request } from "./api.js";
import { chart } from "./chart.js";
import { ago, ask, badge, choice, duration, el, freshId, gain, number, save, say, share } from "./dom.js";
import { progress } from "./list.js";
import { curvesChart, fitnessChart, geneChart, metricsOf } from "./series.js";
import { trialsTable } from "./table.js";
import { watch } from "./watch.js";

const MOST_CURVES = 6;
const FORMATS = [["", "the run's own format"], ["beagle", "Beagle"], ["yolov5", "YOLOv5"], ["scaled-yolov4", "Scaled-YOLOv4"], ["ultralytics", "Ultralytics"]];

/** A part of the page under a heading of its own. */
function section(title, ...children) {
  const id = freshId("section");
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

/** Fill `view` with an evolution and keep it fresh until `signal`. */
export async function showEvolution(view, { part: id, signal }) {
  document.title = `${id} · Beagle`;
  const top = topOf(id);
  const learned = curvesOf(id, signal);
  const fitness = section("Fitness over trials");
  const genes = section("Genes", el("p", { class: "soft" }, "Each dot is a trial: the value of a gene against the fitness that came of it. The ring is the start, the diamond the winner."));
  const grid = el("div", { class: "grid" });
  genes.append(grid);
  const table = trialsTable({ picked: learned.picked, pick: (trial) => toggle(trial) });
  const failures = section("Failures");
  const outcome = section("Winner against start");
  const anchors = section("Anchors");
  const trials = section("Trials", table);
  view.append(top.root, outcome, fitness, learned.root, genes, trials, failures, anchors);
  const charts = { fitness: null, genes: new Map() };
  let now = null;
  async function toggle(trial) {
    await learned.toggle(trial);
    table.show(now);
  }
  const draw = (run, how) => {
    now = run;
    top.show(run, how);
    const begun = run.trials.length > 0;
    for (const each of [fitness, learned.root, genes, trials, outcome]) each.hidden = !begun;
    anchors.hidden = !run.anchors;
    failures.hidden = run.failed === 0;
    if (run.anchors) anchors.replaceChildren(anchors.firstChild, anchorsOf(run.anchors));
    if (!begun) return;
    if (charts.fitness) charts.fitness.show(fitnessChart(run, toggle));
    else fitness.append((charts.fitness = chart(fitnessChart(run, toggle))));
    for (const gene of run.genes) {
      if (charts.genes.has(gene.name)) charts.genes.get(gene.name).show(geneChart(run, gene, toggle));
      else grid.append(charts.genes.set(gene.name, chart(geneChart(run, gene, toggle))).get(gene.name));
    }
    outcome.replaceChildren(outcome.firstChild, outcomeOf(run));
    failures.replaceChildren(failures.firstChild, failuresOf(run));
    table.show(run);
    learned.begin(run).then((drawn) => drawn && table.show(run));
  };
  await watch(id, draw, learned.epoch, signal);
}

function topOf(id) {
  const state = el("span");
  const facts = el("p", { class: "soft" });
  const reason = el("p");
  const bar = el("div");
  const live = el("span", { class: "small soft", role: "status" });
  const stop = el("button", { type: "button", class: "danger", onclick: () => stopIt(id, stop) }, "Stop …");
  const format = choice(FORMATS, "", { "aria-label": "Format of the export" });
  const exported = el("button", { type: "button", onclick: () => busy(exported, () => exportIt(id, format.value)) }, "Download export");
  const report = el("button", { type: "button", onclick: () => busy(report, () => openReport(id)) }, "Open report");
  const other = el("a", { class: "button", href: `#/compare?a=${encodeURIComponent(id)}` }, "Compare …");
  const root = el("div", { class: "top" },
    el("p", { class: "small" }, el("a", { href: "#/" }, "Evolutions"), " / "),
    el("div", { class: "head" }, el("h1", null, id), state), facts, reason, bar,
    el("div", { class: "row actions" }, report, el("span", { class: "joined" }, format, exported), other, stop, live));
  const show = (run, how) => {
    state.replaceChildren(badge(run.state));
    const text = [run.model, run.data && `on ${run.data}`, run.epochs && `${run.epochs} epochs a trial`, run.name !== id && `named ${run.name}`, run.job && `job ${run.job}`].filter(Boolean);
    facts.replaceChildren(text.join(" · "), " · begun ", ago(run.created), " · last news ", ago(run.updated));
    reason.replaceChildren(run.reason ?? "");
    reason.className = run.state === "failed" ? "alarm" : "note";
    reason.hidden = !run.reason;
    if (run.planned) bar.replaceChildren(progress(run));
    stop.hidden = !["running", "waiting"].includes(run.state);
    const begun = run.trials.length > 0;
    [report.disabled, exported.disabled] = [!begun, !run.winner];
    const words = { live: "Live: news comes as it happens.", polling: "Looking every few seconds.", ended: "" }[how];
    if (live.textContent !== words) live.textContent = words;
  };
  return { root, show };
}

async function busy(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

async function stopIt(id, button) {
  const answer = await ask(`Stop ${id}?`, [el("p", null, "Its trials end the epoch that they are in and keep their checkpoints; beagle resume goes on with it later.")],
    [["", "Go on"], ["stop", "Stop it", "danger"]]);
  if (answer !== "stop") return button.focus();
  await busy(button, async () => {
    const { asked } = await post(pathOf(id, "/stop"));
    say(`Asked to stop: ${asked}. It ends with the epochs that run.`);
  });
}

async function exportIt(id, format) {
  const answer = await request(pathOf(id, `/export${format ? `?format=${format}` : ""}`));
  save(await answer.blob(), `${id}-${format || "export"}.zip`);
  say("The export is downloaded.");
}

// A tab can't carry the token, so the report is fetched and opened as what it is: a document that needs nothing.
async function openReport(id) {
  if (!hasToken()) {
    open(pathOf(id, "/report"), "_blank", "noopener");
    return;
  }
  const url = URL.createObjectURL(await (await request(pathOf(id, "/report"))).blob());
  if (!open(url, "_blank")) say("The browser held back the report: allow pop-ups of this page.", true);
  setTimeout(() => URL.revokeObjectURL(url), 600000);
}

function curvesOf(id, signal) {
  const known = new Map();
  const picked = new Set();
  const metric = el("select", { "aria-label": "Metric" });
  const place = el("div");
  const chips = el("div", { class: "row chips" });
  const root = section("Learning curves", el("div", { class: "row" }, el("span", { class: "soft" }, "Metric"), metric), chips, place);
  let figure = null;
  let begun = false;
  const draw = () => {
    const curves = [...picked].map((trial) => known.get(trial)).filter(Boolean);
    const names = metricsOf(curves);
    const chosen = names.includes(metric.value) ? metric.value : "fitness";
    if (names.join() !== [...metric.options].map((each) => each.value).join()) metric.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    metric.value = chosen;
    const spec = curvesChart(curves, chosen);
    if (figure) figure.show(spec);
    else place.append((figure = chart(spec)));
    chips.replaceChildren(...[...picked].map((trial) => el("button", { type: "button", class: "chip", "aria-label": `Take away the curve of trial ${trial}`, onclick: () => out(trial) }, `trial ${trial} `, el("span", { "aria-hidden": "true" }, "×"))));
  };
  const load = async (trial) => {
    if (!known.has(trial)) known.set(trial, await get(pathOf(id, `/trials/${trial}`), signal));
  };
  let out = () => {};
  const toggle = async (trial) => {
    if (picked.delete(trial)) return draw();
    if (picked.size >= MOST_CURVES) picked.delete(picked.values().next().value);
    picked.add(trial);
    try {
      await load(trial);
    } catch (error) {
      picked.delete(trial);
      if (!signal.aborted) say(error.message, true);
    }
    draw();
  };
  out = (trial) => {
    document.querySelector(`tr[data-trial="${trial}"] input`)?.click();
    if (picked.has(trial)) toggle(trial);
  };
  metric.addEventListener("change", draw);
  return {
    root,
    picked,
    toggle,
    async begin(run) {
      if (begun) return false;
      begun = true;
      const best = run.trials.filter((each) => each.fitness !== null).sort((a, b) => b.fitness - a.fitness).slice(0, 3);
      const first = [run.trials[0], ...best, ...run.trials.filter((each) => each.state === "running").slice(0, 1)];
      for (const trial of new Set(first.map((each) => each.id))) picked.add(trial);
      await Promise.all([...picked].map((trial) => load(trial).catch(() => picked.delete(trial))));
      draw();
      return true;
    },
    epoch({ trial, epoch, metrics }) {
      const of = known.get(trial);
      if (!of) return;
      of.curve = [...of.curve.filter((each) => each.epoch !== epoch), { epoch, metrics }].sort((a, b) => a.epoch - b.epoch);
      if (picked.has(trial)) draw();
    },
  };
}

function outcomeOf(run) {
  if (!run.winner) return el("p", { class: "soft" }, "No trial has finished yet, so nothing has won.");
  const { winner } = run;
  const start = run.trials[0];
  const interval = winner.low === null ? "one training, so no interval can be given" : `${number(winner.low)} to ${number(winner.high)} over ${winner.runs} trainings`;
  const belief = el("p", { class: winner.confirmed ? "small soft" : "note" }, winner.words);
  const change = gain(run.start_fitness, winner.fitness);
  const tile = (label, value, more, look) => el("div", { class: "tile" }, el("span", { class: "soft small" }, label), el("b", { class: look }, value), el("span", { class: "soft small" }, more));
  const tiles = el("div", { class: "tiles" },
    tile("Start (trial 0)", number(run.start_fitness), run.start_fitness === null ? "it has no fitness" : "fitness"),
    tile(`Winner (trial ${winner.trial})`, number(winner.fitness), interval, "best"),
    tile("Gain", change || "–", "of the winner over the start", change.startsWith("−") ? "loss" : "gain"));
  const names = Object.keys(winner.config);
  const differ = (name) => start && start.config[name] !== winner.config[name];
  const rows = names.map((name) => el("tr", { class: differ(name) && "won" }, el("th", { scope: "row" }, name), el("td", { class: "num" }, number(start?.config[name])), el("td", { class: "num" }, number(winner.config[name])),
    el("td", { class: "num" }, differ(name) ? gain(Number(start.config[name]), Number(winner.config[name])).replace("NaN %", "") || "changed" : "same")));
  return el("div", null, tiles, belief, el("details", null, el("summary", null, `All ${names.length} settings of both`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings of start and winner" }, el("table", null, el("caption", { class: "unseen" }, "Settings of the start and of the winner"),
      el("thead", null, el("tr", null, ["setting", "start", "winner", "change"].map((each) => el("th", { scope: "col" }, el("span", { class: "pad" }, each))))), el("tbody", null, rows)))));
}

function failuresOf(run) {
  const reasons = new Map();
  for (const each of run.trials) {
    if (each.state !== "failed") continue;
    const reason = each.reason ?? "no reason known";
    reasons.set(reason, [...(reasons.get(reason) ?? []), each]);
  }
  const line = ([reason, failed]) => el("li", null, el("b", null, `${failed.length} × `), reason,
    el("span", { class: "soft small" }, ` (trial ${failed.slice(0, 12).map((each) => each.id).join(", ")}${failed.length > 12 ? " …" : ""}; took ${duration(Math.max(...failed.map((each) => each.seconds ?? 0)))} at most)`));
  return el("ul", { class: "reasons" }, [...reasons].sort((a, b) => b[1].length - a[1].length).map(line));
}

function anchorsOf(anchors) {
  const before = anchors.bpr_before === null ? "" : ` The model's own reached ${share(anchors.bpr_before)} of the boxes.`;
  const after = anchors.bpr_after === null ? "Anchors of all trials." : `An anchor reaches ${share(anchors.bpr_after)} of the boxes (best possible recall).`;
  return el("div", null, el("p", null, `${after}${before}`),
    el("div", { class: "scroll" }, el("table", null, el("caption", { class: "unseen" }, "Anchors by level, width × height in px"),
      el("thead", null, el("tr", null, el("th", { scope: "col" }, el("span", { class: "pad" }, "level")), el("th", { scope: "col" }, el("span", { class: "pad" }, "anchors, width × height in px")))),
      el("tbody", null, anchors.levels.map((level, place) => el("tr", null, el("th", { scope: "row" }, String(place + 1)), el("td", null, level.map(([w, h]) => `${number(w)} × ${number(h)}`).join(", "))))))));
}

