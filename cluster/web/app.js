// The router: an address behind # leads to a view, so links can be kept and the back button works.

import { Refused } from "./api.js";
import { alarm, el } from "./dom.js";
import { showList } from "./list.js";

// What is not needed at first is fetched when it is.
const VIEWS = [
  [/^$/, "Evolutions", async () => showList],
  [/^evolution\/([^/]+)$/, "Evolution", async () => (await import("./evolution.js")).showEvolution],
  [/^compare$/, "Compare", async () => (await import("./compare.js")).showCompare],
  [/^anchors(?:\/([0-9a-f]+))?$/, "Anchors", async () => (await import("./anchors.js")).showAnchors],
  [/^new$/, "Start", async () => (await import("./start.js")).showStart],
];

let leave = null;

async function route() {
  leave?.abort();
  const left = (leave = new AbortController());
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const main = document.getElementById("main");
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href").slice(2) === path.split("/")[0] || (path.startsWith("evolution") && link.hash === "#/");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const [pattern, title, load] = VIEWS.find(([each]) => each.test(path)) ?? [null, "Nothing here", async () => showNothing];
  document.title = `${title} · Beagle`;
  const view = el("div", { class: "view" });
  try {
    const part = pattern ? decoded(path.match(pattern)[1]) : null;
    const show = await load();
    if (left.signal.aborted) return;
    main.replaceChildren(view);
    await show(view, { part, query: new URLSearchParams(query), signal: left.signal });
  } catch (error) {
    if (left.signal.aborted) return;
    if (!(error instanceof Refused)) console.error(error);
    view.append(el("h1", null, title), alarm(`${error.message}`), el("p", null, el("a", { href: "#/" }, "All evolutions")));
    main.replaceChildren(view);
  }
  if (!left.signal.aborted && route.count++) focusHeading(view);
}
route.count = 0;

function decoded(part) {
  try {
    return part === undefined ? null : decodeURIComponent(part);
  } catch {
    return part;
  }
}

// Who reads by ear is taken to the new view, not left at the link that led there.
function focusHeading(view) {
  const heading = view.querySelector("h1");
  if (!heading || document.querySelector("dialog[open]")) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function showNothing(view) {
  view.append(el("h1", null, "Nothing here"), el("p", null, "No view has this address. ", el("a", { href: "#/" }, "All evolutions")));
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the router's
  document.getElementById("main").focus();
});
addEventListener("hashchange", route);
route();
