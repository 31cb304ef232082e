/**
 * Budgets of all routes: where they came from, how much of them was used, what was refused or ran out.
 * @module
 */
import { attribute, h, text } from "./dom.js";
import { count, latency, percent } from "./format.js";
import { routeName } from "./parts.js";
import { store } from "./store.js";
import { Table } from "./table.js";

/** @typedef {import("./store.js").Data} Data */

/** @param {Data} row */
function sums(row) {
  const sources = Object.values(row.budgets.by_source);
  return {
    given: sources.reduce((sum, one) => sum + one.count, 0),
    seconds: sources.reduce((sum, one) => sum + one.sum_seconds, 0),
  };
}

/** @param {Data} row */
const mean = (row) => (sums(row).given ? sums(row).seconds / sums(row).given : null);
/** @param {Data} row */
const used = (row) => (sums(row).seconds > 0 ? Math.min(1, row.duration_sum_seconds / sums(row).seconds) : null);

/**
 * @param {string} id @param {string} label @param {string} hint @param {(row: Data) => number | null} value
 * @param {(value: number | null) => string} [words] @param {boolean} [isBad] where it is not zero
 * @returns {import("./table.js").Column<Data>}
 */
function number(id, label, hint, value, words = count, isBad = false) {
  const cell = (/** @type {HTMLTableCellElement} */ td) => (/** @type {Data} */ row) => {
    const found = value(row);
    text(td, words(found));
    if (isBad) attribute(td, "data-bad", Boolean(found));
  };
  return { id, label, hint, isNumber: true, isDescending: true, value, cell };
}

/** @type {import("./table.js").Column<Data>[]} */
const COLUMNS = [
  {
    id: "name",
    label: "Route",
    isWide: true,
    value: (row) => row.name,
    cell: (td) => {
      const tell = routeName(td);
      return (row) => tell(row.name);
    },
  },
  number("given", "Given", "Exchanges that had a budget: all that have ended", (row) => sums(row).given),
  number("header", "By caller", "The caller's timeout header was the smallest bound", (row) => row.budgets.by_source.header.count),
  number("trace", "Recovered", "The deadline was found again through the trace", (row) => row.budgets.by_source.trace.count),
  number("route", "By route", "The route's own timeout was the smallest bound", (row) => row.budgets.by_source.route.count),
  number("mean", "Mean budget", "Mean of all budgets given", mean, latency),
  {
    ...number("used", "Used", "Share of the given time that exchanges took", used, percent),
    cell: (td) => {
      const meter = h("meter", { min: 0, max: 1, high: 0.8, "aria-hidden": "true" });
      const words = h("span");
      td.append(meter, words);
      return (row) => {
        meter.value = used(row) ?? 0;
        text(words, percent(used(row)));
      };
    },
  },
  number("refused", "Refused", "Too little was left, so nothing was sent", (row) => row.deadline_rejected, count, true),
  number("exceeded", "Ran out", "Ended by the deadline, or after it", (row) => row.deadline_exceeded, count, true),
  number("cancelled", "Cancelled", "Ended because the client or the caller above had gone", (row) => (row.cancellations.client ?? 0) + (row.cancellations.caller ?? 0)),
  number("invalid", "Invalid", "Timeout headers that could not be read and were ignored", (row) => row.budgets.invalid_headers),
];

/** @returns {{node: Element, draw: () => void}} */
export function budgetsView() {
  /** @type {Table<Data>} */
  const table = new Table({
    label: "Budgets",
    columns: COLUMNS,
    order: "given",
    key: (row) => row.name,
    words: (row) => row.name,
    empty: "No route is configured.",
  });
  const note = h("p", { class: "note" }, "Counts are since the start of the process, or since the route was added.");
  return {
    node: h("div", {}, table.node, note),
    draw: () => table.update([...store.routes.values()].map((one) => one.row)),
  };
}
