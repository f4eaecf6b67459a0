// Starting an evolution: the settings that matter in sight, the rest behind a fold.

import { get, post } from "./api.js";
import { alarm, choice, el, field, freshId, say } from "./dom.js";

const whole = (min, max, value, rest) => el("input", { type: "number", min, max, step: 1, value, required: true, ...rest });
const real = (min, max, value, rest) => el("input", { type: "number", min, max, step: "any", value, required: true, ...rest });
const number = (input) => (input.value === "" ? null : Number(input.value));

const PLACES = { local: "this machine", slurm: "Slurm", ray: "Ray", kubernetes: "Kubernetes" };

function controls({ places, models, searches }) {
  const list = freshId("models");
  return {
    list: el("datalist", { id: list }, models.map((value) => el("option", { value }))),
    name: el("input", { type: "text", required: true, maxlength: 50, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", autocomplete: "off", spellcheck: "false" }),
    data: el("input", { type: "text", required: true, maxlength: 4096, value: "digits", autocomplete: "off", spellcheck: "false" }),
    model: el("input", { type: "text", required: true, maxlength: 4096, value: "yolov5s", list, spellcheck: "false" }),
    trials: whole(1, 100000, 100),
    epochs: whole(1, 10000, 10),
    image_size: whole(32, 4096, 640),
    batch_size: whole(1, 65536, 16),
    genes: el("input", { type: "text", placeholder: "the usual ones", pattern: "\\s*[a-z][a-z0-9_]*(\\s*,\\s*[a-z][a-z0-9_]*)*\\s*", spellcheck: "false", autocomplete: "off" }),
    search: choice(searches.map((each) => [each]), "genetic"),
    anchors: choice([["auto", "fit where the model's own fall short"], ["fit", "always fit"], ["keep", "keep the model's own"]], "auto"),
    seed: whole(0, 2147483647, 0),
    rungs: el("input", { type: "text", placeholder: "none", pattern: "\\s*[0-9]{1,5}(\\s*,\\s*[0-9]{1,5})*\\s*", spellcheck: "false", autocomplete: "off" }),
    patience: whole(1, 100000, "", { required: false }),
    epoch_budget: whole(1, 1000000000, "", { required: false }),
    confirm: whole(0, 1000, 0),
    confirm_epochs: whole(1, 10000, "", { required: false }),
    confirm_seeds: whole(1, 1000, 3),
    cpus: real(0.01, 1024, 1),
    gpus: real(0, 1024, 0),
    concurrent: whole(1, 100000, "", { required: false }),
    to: choice(places.map((each) => [each, PLACES[each]]), places[0]),
    nodes: whole(1, 10000, 1),
    hours: real(0.01, 10000, "", { required: false }),
  };
}

function wanted(of) {
  const plain = Object.fromEntries(["name", "data", "model", "search", "anchors", "to"].map((key) => [key, of[key].value.trim()]));
  const numbers = Object.fromEntries(["trials", "epochs", "image_size", "batch_size", "seed", "patience", "epoch_budget", "confirm", "confirm_epochs", "confirm_seeds", "cpus", "gpus", "concurrent", "nodes", "hours"].map((key) => [key, number(of[key])]));
  const list = (input) => input.value.split(",").map((each) => each.trim()).filter(Boolean);
  return { ...plain, ...numbers, genes: list(of.genes), rungs: list(of.rungs).map(Number) };
}

/** Fill `view` with the form. */
export async function showStart(view, { signal }) {
  const of = controls(await get("/choices", signal));
  const problem = el("div");
  const send = el("button", { type: "submit", class: "primary" }, "Start the evolution");
  const form = el("form", null, of.list,
    el("fieldset", null, el("legend", null, "What"), el("div", { class: "fields" },
      field("Name", of.name, "Of its run folder: letters, digits, dots, dashes."),
      field("Data", of.data, "A path on the service's machine under an allowed folder, or digits."),
      field("Model", of.model, "A built-in one, or the path of a model's YAML."))),
    el("fieldset", null, el("legend", null, "How much"), el("div", { class: "fields" },
      field("Trials", of.trials, "Trainings in all."), field("Epochs a trial", of.epochs), field("Image size, px", of.image_size), field("Batch size", of.batch_size))),
    el("fieldset", null, el("legend", null, "Where"), el("div", { class: "fields" },
      field("Place", of.to, "Others are named when the service is started."), field("CPUs a trial", of.cpus), field("GPUs a trial", of.gpus, "0.5 lets two share one."), field("Trials at once", of.concurrent, "Empty: as many as fit."))),
    el("details", null, el("summary", null, "Stopping and confirming"), el("div", { class: "fields" },
      field("Judge trials after epochs", of.rungs, "Such as 3, 10: the hopeless end there. Empty: none does."),
      field("Patience, trials", of.patience, "The search ends when so many gave nothing better. Empty: never."),
      field("Epochs in all", of.epoch_budget, "The search ends when its trials have used them. Empty: as many as they take."),
      field("Confirm the best", of.confirm, "So many are trained again at the end under new seeds, and the start; 0: none."),
      field("Trainings of each", of.confirm_seeds), field("Epochs of each", of.confirm_epochs, "Empty: as a trial's."))),
    el("details", null, el("summary", null, "More settings"), el("div", { class: "fields" },
      field("Genes", of.genes, "Names with commas between, such as lr0, mosaic."), field("Search", of.search), field("Anchors", of.anchors), field("Seed", of.seed),
      field("Nodes", of.nodes), field("Hours", of.hours, "Limit of the job; empty for the place's own."))),
    problem, el("div", { class: "row" }, send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    problem.replaceChildren();
    try {
      const { id, job } = await post("/evolutions", wanted(of));
      say(`Started as job ${job}.`);
      location.hash = `#/evolution/${encodeURIComponent(id)}`;
    } catch (error) {
      problem.replaceChildren(alarm(error.message));
      const wrong = of[error.where];
      if (wrong) {
        wrong.closest("details")?.setAttribute("open", "");
        wrong.focus();
      }
    } finally {
      send.disabled = false;
    }
  });
  view.append(el("h1", null, "Start an evolution"), el("p", { class: "lede" }, "It runs as a job, in a run folder of its own; this page may be closed meanwhile."), el("section", { "aria-label": "Settings" }, form));
}
