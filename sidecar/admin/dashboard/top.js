/**
 * What is always in sight: who this is, whether the page is live, the whole in numbers, and where to go.
 * @module
 */
import { setToken } from "./api.js";
import { askDrain, askReload } from "./confirm.js";
import { attribute, h, icon, text } from "./dom.js";
import { clock, count, duration, latency, percent, plural, rate } from "./format.js";
import { live } from "./live.js";
import { button, chart, markBadge } from "./parts.js";
import { STATES } from "./states.js";
import { store } from "./store.js";
import { errorWords, isMany, needed, passed, quantile, rates } from "./traffic.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @returns {() => void} */
export function header() {
  const service = h("strong", {}, "sidecar");
  const about = h("span", { class: "about" });
  const ready = markBadge();
  const link = markBadge();
  attribute(link.node, "id", "connection");
  const theme = button("Theme", nextTheme, { icon: "theme", title: "Light, dark, or as the system is" });
  byId("top").append(
    h("div", { class: "who" }, icon("closed"), h("h1", {}, service), about),
    h("div", { class: "how" }, ready.node, link.node),
    h(
      "div",
      { class: "do" },
      button("Reload", askReload, { icon: "reload", title: "Read the configuration again" }),
      button("Drain", askDrain, { icon: "drain", title: "Stop being ready, and let connections end" }),
      theme,
    ),
  );
  byId("top").querySelector(".who .icon")?.replaceWith(h("img", { src: "/dashboard/icon.svg", alt: "", width: 26, height: 26 }));
  applyTheme();
  return () => {
    const { status } = store;
    tellLink(link);
    if (!status) return;
    const name = status.service || "sidecar";
    text(service, name);
    document.title = `${status.breakers.open_count ? `(${status.breakers.open_count} open) ` : ""}${name} · sidecar`;
    text(about, `sidecar ${status.version} · process ${status.pid} · up ${duration(status.uptime_seconds)}`);
    if (status.is_draining) ready.update("wait", "draining");
    else if (status.is_ready) ready.update("good", "ready");
    else ready.update("bad", "not ready");
  };
}

/** @param {import("./parts.js").Mark} mark */
function tellLink(mark) {
  if (store.phase === "live") mark.update("good", "live");
  else if (store.phase === "polling") mark.update("wait", "polling, no events");
  else if (store.phase === "lost") mark.update("bad", "connection lost");
  else mark.update("wait", "connecting");
}

const THEMES = ["auto", "light", "dark"];

function nextTheme() {
  const now = localStorage.getItem("sidecar-theme") ?? "auto";
  localStorage.setItem("sidecar-theme", THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  applyTheme();
}

function applyTheme() {
  const theme = localStorage.getItem("sidecar-theme") ?? "auto";
  attribute(document.documentElement, "data-theme", theme === "auto" ? null : theme);
  const label = byId("top").querySelector(".do .button:last-child span");
  if (label) text(label, `Theme: ${theme}`);
}

/** The line that says that what is shown is old, and asks for a token where one is needed. @returns {() => void} */
export function banner() {
  const node = byId("banner");
  const words = h("span");
  const input = h("input", { type: "password", autocomplete: "off", "aria-label": "Token of the admin listener" });
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        setToken(input.value.trim());
        live.soon();
      },
    },
    input,
    h("button", { type: "submit", class: "button" }, "Use this token"),
  );
  node.append(icon("bad"), words, form);
  return () => {
    const isLost = store.phase === "lost";
    node.hidden = !isLost;
    form.hidden = !store.needsToken;
    attribute(document.body, "data-lost", isLost);
    if (!isLost) return;
    const since = store.lastAnswer ? ` What you see is of ${clock(store.lastAnswer)}.` : "";
    const lost = `Connection to the process lost: ${store.trouble}. Trying again every 2 s.${since}`;
    text(words, store.needsToken ? "This listener asks for its token, which is kept in this tab alone." : lost);
  };
}

/** @returns {() => void} */
export function tiles() {
  const requests = tile("Requests a second", "routes");
  const errors = tile("Errors", "routes");
  const p99 = tile("Latency p99", "routes");
  const calls = tile("Calls of the app", "map");
  const breakers = tile("Breakers", "breakers");
  const refused = tile("Budgets refused", "budgets");
  const config = tile("Configuration", "config");
  const all = [requests, errors, p99, calls, breakers, refused, config];
  byId("tiles").append(...all.map((one) => one.node));
  const line = chart(120, 30);
  requests.node.append(line.node);
  return () => {
    if (!store.status) return;
    const history = store.sums[store.headline];
    const seen = passed(history, store.at);
    requests.name(store.headline === "inbound" ? "Requests a second" : "Calls a second");
    const flight = `${count(store.status.exchanges)} under way`;
    requests.tell(seen ? rate(seen.finished / seen.seconds) : "…", seen ? `over ${Math.round(seen.seconds)} s, ${flight}` : "measuring");
    line.update(store.ticks, rates(store.ticks, history), rates(store.ticks, history, "errors"), store.chartSeconds);
    errors.tell(seen?.finished ? percent(seen.errors / seen.finished) : "–", seen ? errorWords(seen) : "measuring");
    errors.mark(isMany(seen));
    tellLatency(p99, seen);
    tellCalls(calls);
    tellBreakers(breakers);
    tellBudgets(refused);
    tellConfig(config);
  };
}

/** What the app asks of others, where that is not the headline. @param {ReturnType<typeof tile>} one */
function tellCalls(one) {
  const hasCalls = [...store.routes.values()].some(({ row }) => row.direction === "outbound");
  const seen = hasCalls ? passed(store.sums.outbound, store.at) : null;
  if (!hasCalls) one.tell("–", "no outbound route");
  else one.tell(seen ? `${rate(seen.finished / seen.seconds)}/s` : "…", seen ? errorWords(seen) : "measuring");
  one.mark(isMany(seen));
}

/** @param {string} label @param {string} view */
function tile(label, view) {
  const value = h("span", { class: "value" }, "…");
  const more = h("span", { class: "more" });
  const shown = h("span", { class: "label" }, label);
  const node = h("a", { class: "tile", href: `#/${view}` }, shown, value, more);
  return {
    node,
    /** @param {string} other */
    name: (other) => text(shown, other),
    /** @param {string} told @param {string} below */
    tell(told, below) {
      text(value, told);
      text(more, below);
      attribute(node, "title", `${label}: ${told}, ${below}`);
    },
    /** @param {boolean} isBad */
    mark: (isBad) => attribute(node, "data-bad", isBad),
  };
}

/** @param {ReturnType<typeof tile>} one @param {import("./traffic.js").Passed | null} seen */
function tellLatency(one, seen) {
  const p99 = seen && seen.finished >= needed(0.99) ? quantile(seen.counts, store.bounds, 0.99) : null;
  if (p99) one.tell(`${p99.sign}${latency(p99.seconds)}`, `of ${plural(seen?.finished ?? 0, "request")}`);
  else one.tell("–", `needs ${needed(0.99)} requests, has ${count(seen?.finished ?? 0)}`);
}

/** @param {ReturnType<typeof tile>} one */
function tellBreakers(one) {
  const { by_state: states, open_count: open, probe_due_count: due, count: all } = /** @type {any} */ (store.status).breakers;
  const others = ["forced_open", "half_open", "forced_closed"]
    .filter((state) => states[state])
    .map((state) => `${count(states[state])} ${STATES[/** @type {import("./states.js").Shown} */ (state)].label}`);
  if (due) others.push(`${count(due)} with a probe due`);
  one.tell(open ? `${count(open)} open` : "none open", all ? [`of ${count(all)}`, ...others].join(", ") : "no breaker");
  one.mark(open > 0);
}

/** @param {ReturnType<typeof tile>} one */
function tellBudgets(one) {
  let [refused, exceeded] = [0, 0];
  for (const { row } of store.routes.values()) {
    refused += row.deadline_rejected;
    exceeded += row.deadline_exceeded;
  }
  one.tell(count(refused), `${count(exceeded)} ran out, since the start`);
}

/** @param {ReturnType<typeof tile>} one */
function tellConfig(one) {
  const { config } = /** @type {any} */ (store.status);
  const isBad = !config.is_last_reload_successful;
  one.tell(count(config.generation), isBad ? "the last reload failed" : `generation, for ${duration(config.age_seconds)}`);
  one.mark(isBad);
}

/** @type {[string, string][]} */
const VIEWS = [
  ["routes", "Routes"],
  ["breakers", "Breakers"],
  ["map", "Map"],
  ["budgets", "Budgets"],
  ["upstreams", "Upstreams"],
  ["config", "Configuration"],
  ["process", "Process"],
  ["tap", "Tap"],
  ["activity", "Activity"],
];

/** @returns {() => void} */
export function navigation() {
  const links = new Map(VIEWS.map(([name, label]) => [name, h("a", { href: `#/${name}`, class: `v-${name}` }, label)]));
  byId("views").append(...links.values());
  return () => {
    const shown = store.view.name === "route" ? "routes" : store.view.name;
    for (const [name, node] of links) attribute(node, "aria-current", name === shown ? "page" : null);
  };
}
