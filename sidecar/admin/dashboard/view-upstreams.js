/**
 * Upstreams and their endpoints: what is under way, connections, limits, and what the breakers that use them say.
 * @module
 */
import { adaptiveColumn } from "./adaptive.js";
import { List, attribute, h, text } from "./dom.js";
import { count } from "./format.js";
import { stateBadge } from "./parts.js";
import { STATES, shown, worst } from "./states.js";
import { store } from "./store.js";
import { Table } from "./table.js";

/**
 * @typedef {import("./store.js").Data} Data
 * @typedef {Data & {states: import("./states.js").Shown[]}} Row
 */

/** @param {number} value @param {number} limit */
const ofLimit = (value, limit) => `${count(value)} / ${count(limit)}`;

/** @param {Data} endpoint */
function endpointPart(endpoint) {
  const address = h("code");
  const numbers = h("span", { class: "numbers" });
  const state = h("span", { class: "mark", "data-mark": "bad" });
  return {
    node: h("li", {}, address, state, numbers),
    /** @param {Data} one */
    update(one) {
      text(address, one.address);
      const left = one.ejected_seconds_left;
      state.hidden = one.state === "usable";
      state.title = one.why;
      text(state, left === null ? one.state : `${one.state}, ${Math.ceil(left)} s left`);
      const where = one.own_pod ? " · this pod" : "";
      text(numbers, `${count(one.in_flight)} in flight · ${count(one.connections)} connections (${count(one.idle)} idle)${where}`);
    },
    endpoint,
  };
}

/**
 * No endpoint of it is known. Those of `original` come with the first client.
 * @param {Row} row
 */
const isNowhere = (row) => !row.endpoints.length && row.configured[0] !== "original";

/** @type {import("./table.js").Column<Row>[]} */
const COLUMNS = [
  {
    id: "health",
    label: "Breaker",
    hint: "What the breakers of the routes that send here say; the worst of them",
    value: (row) => (isNowhere(row) ? -1 : STATES[worst(row.states)].rank),
    cell: (td) => {
      const badge = stateBadge();
      const none = h("span", { class: "mark", "data-mark": "bad" }, "no address");
      td.append(badge.node, none);
      return (row) => {
        badge.node.hidden = isNowhere(row) || !row.states.length;
        none.hidden = !isNowhere(row);
        const { length } = row.states;
        if (length) badge.update(worst(row.states), length > 1 ? `(worst of ${length})` : "");
      };
    },
  },
  {
    id: "name",
    label: "Upstream",
    value: (row) => row.name,
    cell: (td) => {
      const name = h("span", { class: "name" });
      const way = h("span", { class: "way" });
      td.append(name, way);
      return (row) => {
        text(name, row.name);
        text(way, row.configured.join(", "));
      };
    },
  },
  {
    id: "endpoints",
    label: "Endpoints",
    isWide: true,
    cell: (td) => {
      const items = h("ul", { class: "endpoints" });
      const none = h("span", {}, "The name is not resolved: no address is known.");
      td.append(items, none);
      /** @type {List<Data>} */
      const list = new List(items, (one) => one.address, endpointPart);
      return (row) => {
        none.hidden = !isNowhere(row);
        list.update(row.endpoints);
      };
    },
  },
  {
    id: "flight",
    label: "In flight",
    isNumber: true,
    isDescending: true,
    hint: "Under way, of what the limits allow",
    value: (row) => row.in_flight,
    cell: (td) => (row) => text(td, ofLimit(row.in_flight, row.limits.max_requests)),
  },
  adaptiveColumn,
  {
    id: "connections",
    label: "Connections",
    isNumber: true,
    isDescending: true,
    value: (row) => row.connections,
    cell: (td) => (row) => text(td, ofLimit(row.connections, row.limits.max_connections)),
  },
  {
    id: "pending",
    label: "Pending",
    isNumber: true,
    isDescending: true,
    hint: "Waiting for a connection",
    value: (row) => row.pending,
    cell: (td) => (row) => text(td, ofLimit(row.pending, row.limits.max_pending)),
  },
  {
    id: "over",
    label: "Over limits",
    isNumber: true,
    isDescending: true,
    hint: "Calls refused because a limit was reached",
    value: (row) => row.refused_by_limits,
    cell: (td) => (row) => {
      text(td, count(row.refused_by_limits));
      attribute(td, "data-bad", row.refused_by_limits > 0);
    },
  },
];

/** @returns {{node: Element, draw: () => void}} */
export function upstreamsView() {
  /** @type {Table<Row>} */
  const table = new Table({
    label: "Upstreams",
    columns: COLUMNS,
    order: "name",
    key: (row) => row.name,
    words: (row) => `${row.name} ${row.configured.join(" ")}`,
    states: (row) => row.states,
    empty: "Asking…",
  });
  return {
    node: table.node,
    draw() {
      /** @type {Map<string, import("./states.js").Shown[]>} */
      const states = new Map();
      for (const one of store.breakers.values()) {
        const known = states.get(one.upstream) ?? [];
        known.push(shown(one.state, one.is_overridden));
        states.set(one.upstream, known);
      }
      attribute(table.node, "data-adaptive", [...store.upstreams.values()].some((one) => one.adaptive));
      table.update([...store.upstreams.values()].map((row) => /** @type {Row} */ ({ ...row, states: states.get(row.name) ?? [] })));
      store.visible.upstreams = table.visible;
    },
  };
}
