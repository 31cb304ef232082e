/**
 * Puts the page together: the frame, the view that the address names, and what keeps them up to date.
 * @module
 */
import { attribute } from "./dom.js";
import { live } from "./live.js";
import { store } from "./store.js";
import { banner, header, navigation, tiles } from "./top.js";
import { activityView } from "./view-activity.js";
import { breakersView } from "./view-breakers.js";
import { budgetsView } from "./view-budgets.js";
import { configView } from "./view-config.js";
import { mapView } from "./view-map.js";
import { processView } from "./view-process.js";
import { routeView } from "./view-route.js";
import { routesView } from "./view-routes.js";
import { tapView } from "./view-tap.js";
import { upstreamsView } from "./view-upstreams.js";

/** @type {Record<string, () => {node: Element, draw: () => void}>} */
const VIEWS = {
  routes: routesView,
  route: routeView,
  breakers: breakersView,
  map: mapView,
  tap: tapView,
  budgets: budgetsView,
  upstreams: upstreamsView,
  config: configView,
  process: processView,
  activity: activityView,
};

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const aside = /** @type {HTMLElement} */ (document.getElementById("aside"));

/** Each view is made once, when it is first looked at, and keeps its filter. @type {Map<string, {node: Element, draw: () => void}>} */
const made = new Map();

/** @param {string} name */
function view(name) {
  let found = made.get(name);
  if (!found) {
    found = VIEWS[name]();
    made.set(name, found);
  }
  return found;
}

/** `#/breakers`, `#/route/NAME`. */
function readAddress() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  store.view = { name: Object.hasOwn(VIEWS, name) ? name : "routes", route: decoded(rest.join("/")) };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const frame = [header(), banner(), tiles(), navigation()];
const map = mapView();
const feed = activityView();
aside.append(map.node, feed.node);

function draw() {
  const shown = view(store.view.name);
  if (main.firstChild !== shown.node) main.replaceChildren(shown.node);
  for (const one of frame) one();
  shown.draw();
  map.draw();
  feed.draw();
  attribute(document.body, "data-view", store.view.name);
}

window.addEventListener("hashchange", () => {
  if (location.hash === "#main") return; // the skip link
  readAddress();
  draw();
  live.soon();
});

/** "/" leads to the search of what is shown. */
window.addEventListener("keydown", (event) => {
  const from = /** @type {HTMLElement} */ (event.target);
  const isTyping = from.matches("input, select, textarea") || document.querySelector("dialog[open]");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = main.querySelector("input[type=search]");
  if (!(search instanceof HTMLElement)) return;
  event.preventDefault();
  search.focus();
});

readAddress();
draw();
store.watch(draw);
live.start();
