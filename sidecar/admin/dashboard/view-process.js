/**
 * The process: its listeners and its supervised parts.
 * @module
 */
import { List, attribute, h, text } from "./dom.js";
import { count } from "./format.js";
import { fact, markBadge } from "./parts.js";
import { store } from "./store.js";

/** @typedef {import("./store.js").Data} Data */

/** @type {Record<string, "good" | "bad" | "wait">} */
const MARKS = { running: "good", new: "wait", backing_off: "wait", failed: "bad", stopped: "wait" };

function partRow() {
  const mark = markBadge();
  const cells = ["Part", "Restarts", "Mailbox", "Overflows", "Last error"].map((label) => h("td", { "data-label": label }));
  const [name, restarts, mailbox, overflows, error] = cells;
  for (const cell of [restarts, mailbox, overflows]) cell.className = "number";
  name.className = "wide";
  return {
    node: h("tr", {}, h("td", { "data-label": "State" }, mark.node), ...cells),
    /** @param {Data} part */
    update(part) {
      mark.update(MARKS[part.state] ?? "bad", part.state.replace("_", " "));
      text(name, part.name);
      text(restarts, count(part.restarts));
      attribute(restarts, "data-bad", part.restarts > 0);
      text(mailbox, `${count(part.mailbox)} / ${count(part.mailbox_capacity)}`);
      text(overflows, count(part.mailbox_overflows));
      text(error, part.last_error ?? "–");
    },
  };
}

/**
 * What to write routes for: destinations that no route names, the most used first.
 * @param {Data} through
 * @returns {string[][]}
 */
function passedFacts(through) {
  const most = [...through.last].sort((/** @type {Data} */ one, /** @type {Data} */ other) => other.count - one.count);
  return [
    ["destinations", count(through.destinations)],
    ["requests and connections", count(through.passed)],
    ["refused, as their address is closed", count(through.closed)],
    ...most.map((one) => [one.destination, `${count(one.count)} times${one.state === "closed" ? "" : `, breaker ${one.state.replace("_", " ")}`}`]),
  ];
}

/** Where programs find what this page shows. */
const links = () =>
  h(
    "ul",
    { class: "links" },
    ...[
      ["/metrics", "metrics, as Prometheus reads them"],
      ["/openapi.json", "the description of the API"],
      ["/status", "the state"],
      ["/config", "the configuration in use"],
      ["/history", "ten minutes of all routes"],
    ].map(([address, words]) => h("li", {}, h("a", { href: address }, h("code", {}, address)), ` ${words}`)),
    h("li", {}, "In a terminal: ", h("code", {}, "sidecar help"), " lists the commands, ", h("code", {}, "sidecar help status"), " tells of one."),
  );

/**
 * How this replica stands to those that its breakers act as one with.
 * @param {Data | null} fleet
 * @returns {string[][]}
 */
function fleetFacts(fleet) {
  if (!fleet) return [["fleet", "none: each breaker acts for this process"]];
  const failures = Object.entries(fleet.failures).map(([reason, times]) => `${reason} ${count(times)}`);
  return [
    ["fleet", fleet.name],
    ["this replica", fleet.is_alone ? `alone: ${fleet.told || fleet.reason}` : "linked"],
    ["replicas", count(fleet.replicas)],
    ["versions", count(fleet.versions)],
    ["breakers that act as one", count(fleet.shared)],
    ["of those dissenting here", count(fleet.dissenting)],
    ["links that failed", failures.join(", ") || "none"],
  ];
}

/** @returns {{node: Element, draw: () => void}} */
export function processView() {
  const body = h("tbody");
  /** @type {List<Data>} */
  const list = new List(body, (part) => part.name, partRow);
  const heads = ["State", "Part", "Restarts", "Mailbox", "Overflows", "Last error"];
  const number = new Set(["Restarts", "Mailbox", "Overflows"]);
  const head = h("tr", {}, ...heads.map((label) => h("th", { scope: "col", class: number.has(label) && "number" }, label)));
  const facts = h("dl", { class: "facts" });
  const passed = h("dl", { class: "facts" });
  const fleet = h("dl", { class: "facts" });
  let last = "";
  let lastFleet = "";
  let lastPassed = "";
  return {
    node: h(
      "div",
      { class: "cards" },
      h("section", { class: "card whole" }, h("h2", {}, "Supervised parts"), h("table", { class: "grid" }, h("thead", {}, head), body)),
      h("section", { class: "card" }, h("h2", {}, "Listeners and events"), facts),
      h("section", { class: "card" }, h("h2", {}, "Without a route, passed through"), passed),
      h("section", { class: "card" }, h("h2", {}, "The same for programs"), links()),
      h("section", { class: "card" }, h("h2", {}, "With other replicas"), fleet),
    ),
    draw() {
      const { status } = store;
      if (!status) return;
      list.update(status.parts);
      const through = passedFacts(status.pass_through);
      const throughKey = JSON.stringify(through);
      if (throughKey !== lastPassed) {
        lastPassed = throughKey;
        passed.replaceChildren(...through.map(([name, value]) => fact(name, h("code", {}, value))));
      }
      const ofFleet = fleetFacts(status.fleet);
      const fleetKey = JSON.stringify(ofFleet);
      if (fleetKey !== lastFleet) {
        lastFleet = fleetKey;
        fleet.replaceChildren(...ofFleet.map(([name, value]) => fact(name, h("code", {}, value))));
      }
      const told = [
        ...Object.entries(status.listeners),
        ["log level", status.log_level],
        ["readers of events", count(status.events.readers)],
        ["readers refused, as there were too many", count(status.events.refused)],
        ["events missed by slow readers", count(status.events.dropped)],
      ];
      const key = JSON.stringify(told);
      if (key === last) return;
      last = key;
      facts.replaceChildren(...told.map(([name, value]) => fact(name, h("code", {}, String(value)))));
    },
  };
}
