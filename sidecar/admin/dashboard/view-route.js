/**
 * One route: its traffic, each breaker with its past and its candidate, its budgets, and its keys.
 * @module
 */
import { attribute, h, text } from "./dom.js";
import { clock, count, duration, latency, left, percent, plural, rate } from "./format.js";
import { chart, fact, lineBar, stateBadge, traceLink, transitionWords } from "./parts.js";
import { nextWords, shown } from "./states.js";
import { store } from "./store.js";
import { WINDOW_SECONDS, isMany, passed, quantile, rates } from "./traffic.js";
import { overrideButtons, tripCell } from "./view-breakers.js";
import { keys } from "./view-config.js";
import { tellQuantile, wayWords } from "./view-routes.js";

/** @typedef {import("./store.js").Data} Data */
const PAST = 12;

/** @returns {{node: Element, draw: () => void}} */
export function routeView() {
  const node = h("div");
  let name = "";
  let draw = () => {};
  return {
    node,
    draw() {
      const { route } = store.view;
      const has = store.routes.has(route);
      if (name !== `${route} ${has}`) {
        name = `${route} ${has}`;
        const made = has ? build(route) : missing(route);
        node.replaceChildren(...made.nodes);
        draw = made.draw;
      }
      draw();
    },
  };
}

const back = () => h("a", { href: "#/routes", class: "back" }, "‹ All routes");

/** @param {string} name */
function missing(name) {
  const words = h("p", { class: "empty" });
  const draw = () => text(words, store.routes.size ? `There is no route ${name}.` : "Asking…");
  return { nodes: [back(), words], draw };
}

/** @param {string} name */
function build(name) {
  const way = h("span", { class: "way" });
  const facts = [trafficCard(name), budgetCard(name), keysCard(name)];
  const breakers = breakerCards(name);
  const cards = [...facts, ...breakers];
  const stack = (/** @type {{node: Element}[]} */ some) => h("div", { class: "stack" }, ...some.map((one) => one.node));
  const title = h("div", { class: "title" }, back(), h("h2", {}, name), way);
  return {
    nodes: [title, h("div", { class: "cards" }, stack(facts), stack(breakers))],
    draw() {
      const own = store.routes.get(name);
      if (!own) return;
      text(way, wayWords(own.row));
      for (const one of cards) one.draw(own);
    },
  };
}

/** @param {string} title @param {...(Node | null)} content */
const card = (title, ...content) => h("section", { class: "card" }, h("h3", {}, title), ...content);

/** @param {string} _name */
function trafficCard(_name) {
  const line = chart(400, 70);
  const values = ["Requests a second", "Errors", "p50", "p95", "p99", "Active", "Retries"].map((label) => /** @type {const} */ ([label, h("span")]));
  const [perSecond, errors, p50, p95, p99, active, retries] = values.map(([, node]) => node);
  const start = h("p", { class: "note" });
  const kinds = h("p", { class: "note" });
  const facts = h("dl", { class: "facts tight" }, ...values.map(([label, node]) => fact(label, node)));
  return {
    node: card(`Traffic, last ${WINDOW_SECONDS} s`, facts, line.node, start, kinds),
    /** @param {import("./store.js").RouteState} own */
    draw({ row, history }) {
      const seen = passed(history, store.at);
      text(perSecond, seen ? rate(seen.finished / seen.seconds) : "…");
      text(errors, seen?.finished ? percent(seen.errors / seen.finished) : "–");
      attribute(errors, "data-bad", isMany(seen));
      tellQuantile(p50, seen, 0.5);
      tellQuantile(p95, seen, 0.95);
      tellQuantile(p99, seen, 0.99);
      text(active, count(row.active));
      text(retries, count(row.retries));
      line.update(store.ticks, rates(store.ticks, history), rates(store.ticks, history, "errors"), store.chartSeconds);
      const whole = quantile(row.duration_counts, store.bounds, 0.99);
      const far = whole ? `, p99 ${whole.sign}${latency(whole.seconds)}` : "";
      text(start, `Since the start: ${count(row.finished)} requests, ${count(row.errors)} errors, ${plural(row.gone, "client")} gone${far}`);
      text(kinds, listed(row.by_class, row.by_error));
    },
  };
}

/** @param {Record<string, number>} classes @param {Record<string, number>} errors */
function listed(classes, errors) {
  return [...Object.entries(classes), ...Object.entries(errors)].map(([name, value]) => `${name}: ${count(value)}`).join(" · ");
}

/** @param {string} name */
function breakerCards(name) {
  const own = store.routes.get(name);
  const upstreams = own ? own.row.breakers.map((/** @type {Data} */ one) => one.upstream) : [];
  return upstreams.map((/** @type {string} */ upstream) => breakerCard(name, upstream));
}

/** @param {string} name @param {string} upstream */
function breakerCard(name, upstream) {
  const badge = stateBadge();
  const buttons = overrideButtons();
  const bar = lineBar();
  const begin = h("span");
  const next = h("span");
  const tripped = h("span");
  const tellTrip = tripCell(tripped);
  const compared = comparison();
  const past = pastList();
  const node = card(
    `Breaker → ${upstream}`,
    h("div", { class: "row" }, badge.node, next, buttons.node),
    bar.node,
    h("div", { class: "scale", "aria-hidden": "true" }, begin, h("span", {}, "now")),
    h("dl", { class: "facts" }, fact("Why", tripped)),
    compared.node,
    tuning(name),
    past.node,
  );
  node.classList.add("breaker");
  return {
    node,
    draw() {
      const row = store.breakers.get(`${name}/${upstream}`);
      if (!row) return;
      const state = shown(row.state, row.is_overridden);
      const detail = store.details.get(name)?.find((one) => one.upstream === upstream);
      badge.update(state);
      text(begin, `${duration(store.lineSeconds)} ago`);
      text(next, nextWords(row, store.now()));
      buttons.update(row);
      bar.update(detail?.history ?? [], state, store.lineSeconds, store.now());
      tellTrip(row);
      if (detail) compared.update(detail);
      if (detail) past.update(detail.history);
    },
  };
}

/** How to find a better policy: a command, since it takes a core for a while, which is not this process's to give. @param {string} name */
function tuning(name) {
  return h(
    "details",
    {},
    h("summary", {}, "Tune this route"),
    h("p", { class: "note" }, "Plays other policies on the last requests of this process, and writes the better one, if there is one, as a candidate:"),
    h("pre", {}, `sidecar tune ${name} --admin ${location.origin}`),
  );
}

/** The active policy and the candidate side by side. */
function comparison() {
  const body = h("tbody");
  const second = h("th", { scope: "col" }, "Candidate");
  const note = h("p", { class: "note" });
  let last = "";
  return {
    node: h("div", {}, h("table", { class: "plain" }, h("thead", {}, h("tr", {}, h("td"), h("th", { scope: "col" }, "Active"), second)), body), note),
    /** @param {Data} detail */
    update(detail) {
      const { active, candidate } = detail;
      const rows = compareRows(active, candidate);
      const key = JSON.stringify(rows);
      if (key === last) return;
      last = key;
      second.hidden = !candidate;
      body.replaceChildren(
        ...rows.map(([label, one, two, isChanged]) =>
          h("tr", { "data-differs": isChanged }, h("th", { scope: "row" }, label), h("td", {}, one), candidate ? h("td", {}, two) : null),
        ),
      );
      text(note, candidate ? candidateWords(candidate) : "No candidate policy is configured.");
    },
  };
}

/** @param {Data} active @param {Data | null} candidate @returns {[string, string, string, boolean][]} */
function compareRows(active, candidate) {
  /** @type {[string, (side: Data) => string][]} */
  const wanted = [
    ["State", (side) => shown(side.state).replace("_", "-")],
    ["Failures in a row", (side) => `${count(side.window.consecutive_failures)} of ${side.policy.consecutive_failures || "off"}`],
    ["Failure rate", (side) => `${percent(side.window.failure_rate)} of ${percent(side.policy.failure_rate_threshold)}`],
    ["Slow calls", (side) => (side.policy.slow_call_duration === null ? "off" : `${percent(side.window.slow_rate)} of ${percent(side.policy.slow_call_rate_threshold)} over ${latency(side.policy.slow_call_duration)}`)],
    ["Window", (side) => `${count(side.window.total)} calls, counts from ${count(side.policy.minimum_calls)}`],
    ["Open for", (side) => `${left(side.policy.open_for)} up to ${left(side.policy.max_open_for)}`],
    ["Calls", (side) => `${count(side.counters.successful)} good, ${count(side.counters.failed)} failed, ${count(side.counters.slow)} slow`],
    ["Refused", (side) => (side === candidate ? `would have refused ${count(side.would_have_rejected)}` : count(side.counters.rejected))],
  ];
  return wanted.map(([label, words]) => {
    const [one, two] = [words(active), candidate ? words(candidate) : ""];
    return [label, one, two, Boolean(candidate) && one !== two];
  });
}

/** @param {Data} one */
function candidateWords(one) {
  return `The candidate would have refused ${count(one.would_have_rejected)}: ${count(one.failures_saved)} of them failed in fact, ${count(one.would_have_been_fine)} were fine.`;
}

/** The last transitions, each with all exchanges that caused it. */
function pastList() {
  const items = h("ol", { class: "past" });
  const head = h("h4", {}, "Changes of state");
  let last = -1;
  return {
    node: h("div", {}, head, items),
    /** @param {Data[]} history */
    update(history) {
      const newest = history[0]?.sequence ?? 0;
      if (newest === last) return;
      last = newest;
      head.textContent = history.length ? "Changes of state" : "No change of state yet";
      items.replaceChildren(...history.slice(0, PAST).map(pastItem));
    },
  };
}

/** @param {Data} one */
function pastItem(one) {
  const badge = stateBadge();
  badge.update(shown(one.to, one.reason === "forced"));
  const template = store.config?.active.process["admin.trace_url"];
  const links = one.causes.slice(-6).map((/** @type {any} */ cause) => traceLink(cause, template));
  const rest = one.causes.length > 6 ? ` and ${one.causes.length - 6} more` : "";
  const wait = one.wait_seconds === null ? "" : `, for ${left(one.wait_seconds)}`;
  return h(
    "li",
    {},
    h("time", { datetime: one.at }, clock(one.at)),
    badge.node,
    h("span", {}, `${transitionWords(one)}${wait}`),
    links.length ? h("span", { class: "traces" }, ...links, rest) : null,
  );
}

/** @param {string} _name */
function budgetCard(_name) {
  const labels = ["By the caller", "Recovered from the trace", "By the route", "Refused", "Ran out", "Cancelled by the client", "Cancelled by the caller above"];
  const values = labels.map((label) => /** @type {const} */ ([label, h("span")]));
  const node = card("Budgets, since the start", h("dl", { class: "facts" }, ...values.map(([label, one]) => fact(label, one))));
  node.classList.add("later");
  return {
    node,
    /** @param {import("./store.js").RouteState} own */
    draw({ row }) {
      const { header, trace, route } = row.budgets.by_source;
      const mean = (/** @type {Data} */ one) => (one.count ? `${count(one.count)} · mean ${latency(one.sum_seconds / one.count)}` : "0");
      const { client = 0, caller = 0 } = row.cancellations;
      const told = [mean(header), mean(trace), mean(route), row.deadline_rejected, row.deadline_exceeded, client, caller];
      values.forEach(([, node], place) => text(node, typeof told[place] === "number" ? count(told[place]) : told[place]));
    },
  };
}

/** @param {string} name */
function keysCard(name) {
  const content = h("div");
  const node = h("section", { class: "card later" }, h("details", {}, h("summary", {}, h("h3", {}, "Configuration, with all defaults")), content));
  /** @type {unknown} */
  let last = null;
  return {
    node,
    draw() {
      const written = store.written.get(name);
      if (!written || written === last) return;
      last = written;
      content.replaceChildren(keys(written));
    },
  };
}

