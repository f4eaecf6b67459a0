// Speaking to the service: the token, errors in one line, and the stream of events.

import { ask, el, field } from "./dom.js";

const KEY = "beagle-token"; // of this tab alone, and forgotten with it

/** What the service refused, and why. */
export class Refused extends Error {
  constructor(status, message, where) {
    super(message);
    this.status = status;
    this.where = where;
  }
}

let asking = null;

function askToken(why) {
  // Several requests may be refused at once: one question serves them all.
  asking ??= (async () => {
    const input = el("input", { type: "password", name: "token", required: true, autocomplete: "off", autofocus: true });
    const body = [el("p", null, why), field("Token", input, "It is kept for this tab only.")];
    const answer = await ask("This service needs a token", body, [["give", "Continue", "primary"]]);
    if (answer === "give") sessionStorage.setItem(KEY, input.value.trim());
    asking = null;
    return answer === "give";
  })();
  return asking;
}

async function refusal(answer) {
  try {
    const { error, where } = await answer.json();
    return new Refused(answer.status, error, where);
  } catch {
    return new Refused(answer.status, `the service answered ${answer.status}`, null);
  }
}

/** An answer of the service, whatever it holds. Asks for a token where one is needed. */
export async function request(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "the service does not answer: is it still running?", null);
    }
    if (answer.ok) return answer;
    const refused = await refusal(answer);
    if (answer.status !== 401) throw refused;
    // Another request may have asked meanwhile.
    if (sessionStorage.getItem(KEY) !== token) continue;
    const why = token ? "The token is wrong." : "It was given to whoever started the service.";
    if (!(await askToken(why))) throw refused;
  }
}

/** JSON of a path. */
export const get = async (path, signal) => (await request(path, { signal })).json();

/** JSON sent to a path; JSON that came back. */
export async function post(path, data) {
  const headers = data === undefined ? {} : { "content-type": "application/json" };
  return (await request(path, { method: "POST", headers, body: data === undefined ? undefined : JSON.stringify(data) })).json();
}

/** Path of an evolution. */
export const pathOf = (id, rest = "") => `/evolutions/${encodeURIComponent(id)}${rest}`;

/** Whether a token was given. */
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});

/**
 * Events of an evolution until it ends or `signal` is given: EventSource can't carry a token, so it is read here.
 *
 * @param {string} id
 * @param {number} offset what is known already
 * @param {(kind: string, data: object) => void} told
 * @param {(live: boolean) => void} linked told when the stream stands and when it is lost
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>} whether it ended; false where the caller should poll instead
 */
export async function follow(id, offset, told, linked, signal) {
  let place = offset;
  let failures = 0;
  while (!signal.aborted) {
    try {
      const headers = { "last-event-id": String(place) };
      const answer = await request(pathOf(id, "/events"), { headers, signal });
      linked(true);
      failures = 0;
      for await (const event of parsed(answer.body)) {
        if (event.id) place = Number(event.id);
        told(event.kind, event.data);
        if (event.kind === "end") return true;
      }
    } catch (error) {
      if (signal.aborted) return true;
      if (error.status === 429 || ++failures > 3) return false;
    }
    linked(false);
    await pause(Math.min(1000 * 2 ** failures, 15000), signal);
  }
  return true;
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").filter((line) => !line.startsWith(":"))
          .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()]));
        if (fields.data) yield { kind: fields.event, id: fields.id, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
