// Anchor fitting: labels in, anchors and their recall out. A fit has an address of its own, so it can be kept.

import { get, post, request } from "./api.js";
import { alarm, choice, el, field, number, save, say, share } from "./dom.js";
import { densityChart } from "./density.js";

const KINDS = ".csv,.txt,.xml,.json,.zip";

/** Fill `view` with the form, or with the fit that the address names. */
export async function showAnchors(view, { part: id, signal }) {
  const place = el("div");
  const { models } = await get("/choices", signal);
  view.append(el("h1", null, "Fit anchors"),
    el("p", { class: "lede" }, "Anchors are the box shapes that a detector starts from. These are fitted to the shapes of your labels."), form(models, place, signal), place);
  if (id) await follow(place, await get(`/anchors/${id}`, signal), signal);
}

function form(models, place, signal) {
  let file = null;
  const name = el("b", null, "Drop a label file here, or choose one");
  const input = el("input", { type: "file", accept: KINDS, class: "unseen", "aria-label": "Label file" });
  const drop = el("label", { class: "drop" }, name, el("span", { class: "soft small" }, "CSV of shapes, YOLO .txt, VOC .xml, COCO .json, or a .zip of them"), input);
  const path = el("input", { type: "text", name: "path", placeholder: "digits", autocomplete: "off", spellcheck: "false" });
  const model = choice(models.map((each) => [each]), "yolov5s");
  const size = el("input", { type: "number", min: 32, max: 4096, step: 1, value: 640, required: true });
  const per = el("input", { type: "number", min: 0, max: 20, step: 1, value: 0, required: true });
  const threshold = el("input", { type: "number", min: 1.01, max: 100, step: "any", value: 4, required: true });
  const seed = el("input", { type: "number", min: 0, max: 2147483647, step: 1, value: 0, required: true });
  const send = el("button", { type: "submit", class: "primary" }, "Fit anchors");
  const take = (taken) => {
    file = taken ?? null;
    name.replaceChildren(file ? `${file.name}, ${bytes(file.size)}` : "Drop a label file here, or choose one");
    if (file) path.value = "";
  };
  input.addEventListener("change", () => take(input.files[0]));
  path.addEventListener("input", () => {
    input.value = "";
    take(null);
  });
  dropping(drop, take);
  const root = el("form", null, drop, el("div", { class: "fields" },
    field("Or a path on the server", path, "Under a folder that the service was allowed, or digits."),
    field("Model", model), field("Image size, px", size)), el("details", null, el("summary", null, "More settings"), el("div", { class: "fields" }, field("Anchors a level", per, "0 for the model's number."),
    field("Threshold", threshold, "Largest ratio of sides that still counts as reached."), field("Seed", seed))), el("div", { class: "row" }, send));
  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!file && !path.value.trim()) return place.replaceChildren(alarm("Choose a label file, or name a path."));
    send.disabled = true;
    place.replaceChildren(el("p", { class: "soft", role: "status" }, "Sending …"));
    const words = { model: model.value, image_size: Number(size.value), per_level: Number(per.value), threshold: Number(threshold.value), seed: Number(seed.value) };
    try {
      const fit = file ? await upload(file, words) : await post("/anchors?wait=0", { path: path.value.trim(), ...words });
      history.replaceState(null, "", `#/anchors/${fit.id}`);
      await follow(place, fit, signal);
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(alarm(error.message));
    } finally {
      send.disabled = false;
    }
  });
  return el("section", { "aria-label": "Labels and settings" }, root);
}

function dropping(drop, take) {
  const over = (on) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", on);
  };
  drop.addEventListener("dragover", over(true));
  drop.addEventListener("dragleave", over(false));
  drop.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files.length > 1) say("One file at a time: pack several into a zip.", true);
    else if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

const bytes = (size) => (size < 1e6 ? `${Math.max(Math.round(size / 1e3), 1)} kB` : `${(size / 1e6).toFixed(1)} MB`);

async function upload(file, words) {
  const body = new FormData();
  for (const [key, value] of Object.entries(words)) body.append(key, value);
  body.append("file", file, file.name);
  return (await request("/anchors?wait=0", { method: "POST", body })).json();
}

async function follow(place, first, signal) {
  let fit = first;
  const waiting = el("p", { class: "soft", role: "status" });
  place.replaceChildren(waiting);
  while (fit.state === "waiting" || fit.state === "running") {
    const words = fit.state === "running" ? "Fitting …" : fit.position === 0 ? "Waiting: next in line." : `Waiting: ${fit.position} fits come before.`;
    if (waiting.textContent !== words) waiting.textContent = words;
    // While it waits its place in the line is asked for often, while it runs its end is waited for.
    fit = await get(`/anchors/${fit.id}?wait=${fit.state === "waiting" ? 2 : 20}`, signal);
  }
  if (signal.aborted) return;
  place.replaceChildren(fit.state === "failed" ? alarm(fit.error) : resultOf(fit));
}

function resultOf({ id, result }) {
  const yaml = yamlOf(result);
  const { before, after } = result;
  const row = (label, of, show) => el("tr", null, el("th", { scope: "row" }, label), el("td", { class: "num" }, show(of(before))), el("td", { class: "num" }, el("b", null, show(of(after)))));
  const figures = el("table", { class: "narrow" }, el("caption", { class: "unseen" }, "How well anchors fit, before and after"),
    el("thead", null, el("tr", null, ["", "model's own", "fitted"].map((each) => el("th", { scope: "col" }, el("span", { class: "pad" }, each))))),
    el("tbody", null, row("best possible recall", (each) => each.bpr, share), row("fitness", (each) => each.fitness, (value) => number(value)), row("anchors that reach a box", (each) => each.above, (value) => value.toFixed(2))));
  const download = el("button", { type: "button", class: "primary", onclick: () => save(new Blob([yaml], { type: "application/yaml" }), `anchors-${id.slice(0, 8)}.yaml`) }, "Download anchors.yaml");
  return el("div", null,
    el("section", { "aria-label": "Result" }, el("h2", null, `An anchor reaches ${share(after.bpr)} of the boxes; the model's own reach ${share(before.bpr)}`),
      el("p", { class: "soft" }, `${result.boxes.toLocaleString("en")} boxes at ${result.image_size} px, threshold ${number(result.threshold)}, ${number(result.seconds, 3)} s.`),
      result.notes.map((note) => el("p", { class: "note" }, note)),
      el("div", { class: "beside" }, densityChart(result), el("div", null, el("div", { class: "scroll" }, figures))),
      el("h3", { class: "gap" }, "The fitted anchors, as they stand in a model's file"), el("pre", { tabindex: "0", "aria-label": "Anchors as YAML" }, yaml), el("div", { class: "row" }, download)));
}

function yamlOf({ anchors, strides }) {
  const level = (pairs, place) => `  - [${pairs.map((pair) => pair.map((value) => Number(value.toFixed(2))).join(",")).join(", ")}]  # stride ${strides[place]}`;
  return `anchors:  # width,height in px, one line per level\n${anchors.map(level).join("\n")}\n`;
}
