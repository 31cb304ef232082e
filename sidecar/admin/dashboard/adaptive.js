/**
 * What adaptive limits allow at present, how much of it is used, and why: for the tables of upstreams and breakers.
 * @module
 */
import { attribute, h, text } from "./dom.js";
import { ago, clock, count, NONE } from "./format.js";
import { store } from "./store.js";

/** @typedef {import("./store.js").Data} Data */

/** Why a limit was changed last. @type {Readonly<Record<string, string>>} */
const REASONS = Object.freeze({
  start: "not changed yet",
  in_line: "answers waited in a line",
  used: "it was used, and nothing waited",
  usual: "twice of what is usual",
  blind: "too few answers to judge by",
  reload: "by a new configuration",
});

/**
 * The last change in words.
 * @param {Data} limit as the API tells it
 * @param {number} now milliseconds since the epoch
 */
export function changeWords(limit, now) {
  const { at, reason } = limit.changed;
  const words = REASONS[reason] ?? reason;
  return reason === "start" ? words : `${words}, ${ago(at, now)}`;
}

/**
 * How much of a limit is used, with its mode where it only observes.
 * @param {Data} limit
 */
export const usedWords = (limit) => `${count(limit.in_flight)} / ${count(limit.limit)}${limit.mode === "observe" ? " observed" : ""}`;

/**
 * All of it in a line; nothing without such a limit.
 * @param {Data | null | undefined} limit
 * @param {number} now milliseconds since the epoch
 */
export const limitWords = (limit, now) => (limit ? `limit ${usedWords(limit)}: ${changeWords(limit, now)}` : "");

/** @type {import("./table.js").Column<any>} */
export const adaptiveColumn = {
  id: "adaptive",
  label: "Adaptive limit",
  isNumber: true,
  isDescending: true,
  hint: "In flight without streams, of what the adaptive limit allows, and why that was changed last",
  value: ({ adaptive }) => (adaptive ? adaptive.in_flight / adaptive.limit : null),
  cell: (td) => {
    const used = h("span");
    const why = h("span", { class: "way" });
    td.append(used, why);
    return ({ adaptive }) => {
      text(used, adaptive ? usedWords(adaptive) : NONE);
      text(why, adaptive ? changeWords(adaptive, store.now()) : "");
      attribute(why, "title", adaptive ? clock(adaptive.changed.at) : null);
      attribute(td, "data-bad", adaptive?.mode === "on" && adaptive.in_flight >= adaptive.limit);
    };
  },
};
