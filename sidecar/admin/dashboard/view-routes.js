/**
 * All routes: what passes, how it went, how long it took, and what their breakers say.
 * @module
 */
import { attribute, text } from "./dom.js";
import { count, latency, percent, rate } from "./format.js";
import { chart, routeName, stateBadge } from "./parts.js";
import { STATES, shown, worst } from "./states.js";
import { store } from "./store.js";
import { Table } from "./table.js";
import { WINDOW_SECONDS, errorWords, isMany, needed, passed, quantile, rates } from "./traffic.js";

/**
 * @typedef {import("./store.js").RouteState} RouteState
 * @typedef {RouteState & {seen: import("./traffic.js").Passed | null}} Row
 */

/** @param {import("./store.js").Data} row @returns {import("./states.js").Shown[]} */
export const statesOf = (row) =>
  row.breakers.map((/** @type {{upstream: string, state: string}} */ one) => {
    const known = store.breakers.get(`${row.name}/${one.upstream}`);
    return shown(one.state, known?.is_overridden);
  });

/** @param {Row} row */
const perSecond = ({ seen }) => (seen ? seen.finished / seen.seconds : null);
/** @param {Row} row */
const errorShare = ({ seen }) => (seen?.finished ? seen.errors / seen.finished : null);

/** @param {import("./traffic.js").Passed | null} seen @param {number} share */
function known(seen, share) {
  return seen && seen.finished >= needed(share) ? quantile(seen.counts, store.bounds, share) : null;
}

/** @param {number} share @param {string} label @returns {import("./table.js").Column<Row>} */
function quantileColumn(share, label) {
  return {
    id: label,
    label,
    isNumber: true,
    isDescending: true,
    hint: `Of the last ${WINDOW_SECONDS} s, from histogram buckets; needs ${needed(share)} requests`,
    value: ({ seen }) => known(seen, share)?.seconds ?? null,
    cell: (td) => (row) => tellQuantile(td, row.seen, share),
  };
}

/** A quantile, or that there are too few requests for it. @param {Element} node @param {import("./traffic.js").Passed | null} seen @param {number} share */
export function tellQuantile(node, seen, share) {
  const found = known(seen, share);
  const isFew = Boolean(seen?.finished) && !found;
  text(node, found ? `${found.sign}${latency(found.seconds)}` : isFew ? "too few" : "–");
  attribute(node, "data-few", isFew);
  const has = `${count(seen?.finished ?? 0)} requests in the last ${WINDOW_SECONDS} s, needs ${needed(share)}`;
  attribute(node, "title", found ? null : `Not enough data: ${has}`);
}

/** @type {import("./table.js").Column<Row>[]} */
const COLUMNS = [
  {
    id: "state",
    label: "Breaker",
    value: ({ row }) => (row.breakers.length ? STATES[worst(statesOf(row))].rank : null),
    cell: (td) => {
      const badge = stateBadge();
      td.append(badge.node);
      return ({ row }) => {
        const states = statesOf(row);
        badge.node.hidden = !states.length;
        if (states.length) badge.update(worst(states), states.length > 1 ? `(worst of ${states.length})` : "");
      };
    },
  },
  {
    id: "name",
    label: "Route",
    isWide: true,
    value: ({ row }) => row.name,
    cell: (td) => {
      const tell = routeName(td);
      return ({ row }) => tell(row.name, wayWords(row));
    },
  },
  {
    id: "chart",
    label: "Last 10 min",
    cell: (td) => {
      const line = chart(120, 26);
      td.append(line.node);
      return ({ history }) => line.update(store.ticks, rates(store.ticks, history), rates(store.ticks, history, "errors"), store.chartSeconds);
    },
  },
  {
    id: "rate",
    label: "Req/s",
    isNumber: true,
    isDescending: true,
    hint: `Requests a second, over the last ${WINDOW_SECONDS} s`,
    value: perSecond,
    cell: (td) => (row) => text(td, row.seen ? rate(perSecond(row)) : "…"),
  },
  {
    id: "errors",
    label: "Errors",
    isNumber: true,
    isDescending: true,
    hint: `Share of requests that went wrong for a client that stayed, over the last ${WINDOW_SECONDS} s`,
    value: errorShare,
    cell: (td) => (row) => {
      text(td, percent(errorShare(row)));
      attribute(td, "data-bad", isMany(row.seen));
      attribute(td, "title", row.seen ? errorWords(row.seen) : null);
    },
  },
  quantileColumn(0.5, "p50"),
  quantileColumn(0.95, "p95"),
  quantileColumn(0.99, "p99"),
  {
    id: "active",
    label: "Active",
    isNumber: true,
    isDescending: true,
    hint: "Exchanges under way",
    value: ({ row }) => row.active,
    cell: (td) => ({ row }) => text(td, count(row.active)),
  },
];

/** Where a route listens and sends. @param {import("./store.js").Data} row */
export function wayWords(row) {
  const entries = Object.entries(row.upstreams);
  const to = entries.map(([name, weight]) => (entries.length > 1 ? `${name} ${weight}` : name)).join(", ");
  const fallback = row.fallback === null ? "" : `, fallback ${row.fallback}`;
  return `${row.listener} → ${to}${fallback}`;
}

/** @returns {{node: Element, draw: () => void}} */
export function routesView() {
  /** @type {Table<Row>} */
  const table = new Table({
    label: "Routes",
    columns: COLUMNS,
    order: "state",
    key: ({ row }) => row.name,
    words: ({ row }) => `${row.name} ${wayWords(row)}`,
    states: ({ row }) => statesOf(row),
    empty: "No route is configured.",
  });
  return {
    node: table.node,
    draw() {
      table.update([...store.routes.values()].map((one) => ({ ...one, seen: passed(one.history, store.at) })));
      store.visible.routes = table.visible;
    },
  };
}
