// All evolutions, looked at every two seconds while they are seen.
// Not streamed: a browser opens six connections to a server, and a stream each would take them all.

import { get } from "./api.js";
import { ago, alarm, badge, el, gain, number } from "./dom.js";

const LOOK_MS = 2000;
const ORDER = ["running", "waiting", "interrupted", "failed", "stopped", "finished"];

/** Fill `view` with the list and keep it fresh until `signal`. */
export async function showList(view, { signal }) {
  const found = (await get("/evolutions", signal)).evolutions;
  const counts = el("p", { class: "lede" });
  const problem = el("div");
  const state = el("select", { "aria-label": "State" });
  const words = el("input", { type: "search", placeholder: "Name, data or model", "aria-label": "Find by name, data or model" });
  const cards = el("ul", { class: "cards" });
  let now = found;
  const draw = () => {
    const wanted = words.value.trim().toLowerCase();
    const seen = now.filter((each) => (state.value === "all" || each.state === state.value)
      && `${each.id} ${each.name} ${each.data} ${each.model}`.toLowerCase().includes(wanted));
    counts.replaceChildren(sentence(now));
    update(cards, seen);
    if (!now.length) cards.replaceChildren(nothingYet());
    else if (!seen.length) cards.replaceChildren(el("li", { class: "empty" }, "No evolution matches."));
  };
  state.append(el("option", { value: "all" }, "All states"), ...ORDER.map((each) => el("option", { value: each }, each)));
  state.addEventListener("change", draw);
  words.addEventListener("input", draw);
  view.replaceChildren(
    el("div", { class: "head" }, el("h1", null, "Evolutions"), el("a", { class: "button primary", href: "#/new" }, "Start an evolution")),
    counts, problem, el("div", { class: "row filters", hidden: found.length === 0 }, words, state), cards);
  draw();
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      now = (await get("/evolutions", signal)).evolutions;
      problem.replaceChildren();
      draw();
    } catch (error) {
      if (!signal.aborted && !problem.hasChildNodes()) problem.append(alarm(`${error.message} Shown is what was known last.`));
    }
  }, LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function sentence(evolutions) {
  const parts = ORDER.map((state) => [state, evolutions.filter((each) => each.state === state).length]).filter(([, many]) => many);
  return parts.length ? `${parts.map(([state, many]) => `${many} ${state}`).join(", ")}.` : "";
}

function nothingYet() {
  return el("li", { class: "empty" }, el("h2", null, "No evolution yet"),
    el("p", null, "An evolution tries many settings of a detector and keeps those that do best. Start one here, or with ",
      el("code", null, "beagle evolve digits --out runs/first"), "."));
}

// Cards that stay are left where they are, so neither focus nor a reader's place is lost.
function update(list, evolutions) {
  const kept = new Map([...list.children].filter((each) => each.dataset.id !== undefined).map((each) => [each.dataset.id, each]));
  const wanted = evolutions.map((each) => {
    const text = JSON.stringify(each) + Math.floor(Date.now() / 60000); // "5 min ago" grows old
    const card = kept.get(each.id) ?? el("li", { class: "card" });
    card.dataset.id = each.id;
    if (card.told !== text) fillCard(card, each);
    card.told = text;
    return card;
  });
  if (wanted.length !== list.children.length || wanted.some((card, place) => list.children[place] !== card)) list.replaceChildren(...wanted);
}

function fillCard(card, each) {
  const had = card.contains(document.activeElement);
  const link = el("a", { href: `#/evolution/${encodeURIComponent(each.id)}` }, each.id);
  card.replaceChildren(...[
    el("div", { class: "head" }, el("h2", null, link), badge(each.state)),
    el("p", { class: "soft small" }, [each.model, each.data && `on ${each.data}`].filter(Boolean).join(" ") || "no settings known", " · ", ago(each.updated)),
    each.reason && el("p", { class: each.state === "failed" ? "reason" : "small" }, each.reason),
    each.planned > 0 && progress(each),
    each.best && versus(each)].filter(Boolean));
  if (had) link.focus();
}

/** How far an evolution has come. */
export function progress(each) {
  const told = each.finished + each.failed + each.cut;
  const words = [`${told} of ${each.planned} trials`, each.running && `${each.running} running`, each.failed && `${each.failed} failed`, each.cut && `${each.cut} ended early`];
  return el("div", { class: "progress" },
    el("progress", { max: each.planned, value: told, "aria-label": "Trials told" }),
    el("span", { class: "small soft" }, words.filter(Boolean).join(", ")));
}

/** Start against best, in one line. */
function versus(each) {
  const change = gain(each.start_fitness, each.best.fitness);
  return el("p", { class: "versus" },
    el("span", null, el("span", { class: "soft" }, "start "), number(each.start_fitness)),
    el("span", { "aria-hidden": "true", class: "soft" }, "→"),
    el("span", null, el("span", { class: "soft" }, "best "), el("b", null, number(each.best.fitness))),
    change && el("span", { class: change.startsWith("−") ? "loss" : "gain" }, change));
}
