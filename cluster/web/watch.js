// One evolution kept fresh: the journal's events as they come, or a look every few seconds where no stream is to be had.

import { follow, get, pathOf } from "./api.js";

const DRAW_MS = 400;
const POLL_MS = 3000;
const ENDED_MS = 15000;
const WINNER_MS = 3000;

/**
 * Read an evolution and keep it fresh until `signal`.
 *
 * @param {string} id
 * @param {(run: object, how: string) => void} changed told at most every 400 ms; `how` is live, polling or ended
 * @param {(event: object) => void} epoch told of each epoch: {trial, epoch, metrics}
 * @param {AbortSignal} signal
 */
export async function watch(id, changed, epoch, signal) {
  const run = await get(pathOf(id), signal);
  let places = new Map(run.trials.map((each, place) => [each.id, place]));
  let [how, timer, fresh] = ["polling", null, Date.now()];
  const draw = () => {
    timer ??= setTimeout(() => {
      timer = null;
      if (!signal.aborted) changed(run, how);
    }, DRAW_MS);
  };
  const renew = async () => {
    fresh = Date.now();
    const now = await get(pathOf(id), signal);
    if (now.offset === run.offset && now.state === run.state && how === "ended") return;
    Object.assign(run, now);
    places = new Map(run.trials.map((each, place) => [each.id, place]));
    draw();
  };
  const told = (kind, data) => {
    if (kind === "trial") {
      if (!places.has(data.id)) places.set(data.id, run.trials.push(data) - 1);
      else run.trials[places.get(data.id)] = data;
      // The winner and its interval are the service's to say.
      if (data.state !== "running" && Date.now() - fresh > WINNER_MS) renew().catch(() => {});
    } else if (kind === "epoch") {
      const trial = run.trials[places.get(data.trial)];
      if (trial) trial.epoch = Math.max(trial.epoch, data.epoch + 1);
      epoch(data);
    } else {
      Object.assign(run, data);
    }
    draw();
  };
  const going = () => ["running", "waiting"].includes(run.state);
  const keep = async () => {
    while (!signal.aborted) {
      if (how !== "ended" || going()) {
        if (await streamed()) how = going() ? "polling" : "ended";
        else how = "polling";
        if (signal.aborted) return;
        await renew().catch(() => {});
        if (!going()) how = "ended";
      }
      // What ended may be resumed: it is looked at now and then.
      await new Promise((resolve) => setTimeout(resolve, how === "ended" ? ENDED_MS : POLL_MS));
      if (signal.aborted || document.hidden) continue;
      await renew().catch(() => {});
    }
  };
  const streamed = () => follow(id, run.offset, told, (live) => {
    how = live ? "live" : "polling";
    draw();
  }, signal);
  changed(run, going() ? "polling" : "ended");
  if (!going()) how = "ended";
  keep();
  return run;
}
