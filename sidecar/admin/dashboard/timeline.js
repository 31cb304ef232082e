/**
 * A breaker's transitions as periods of a state. Pure.
 * @module
 */
import { shown } from "./states.js";

/** How far back a time line goes. */
export const LINE_SECONDS = 600;

/**
 * @typedef {{state: import("./states.js").Shown, from: number, to: number}} Period milliseconds since the epoch
 * @typedef {{[key: string]: any}} Transition as the API tells it: from, to, reason, at, window, causes
 */

/**
 * The periods between two instants, oldest first and without gaps.
 * @param {Transition[]} history newest first, as the API tells it
 * @param {import("./states.js").Shown} current
 * @param {number} begin
 * @param {number} end
 * @returns {Period[]}
 */
export function periods(history, current, begin, end) {
  /** @type {Period[]} */
  const found = [];
  let until = end;
  let state = current;
  for (const [place, one] of history.entries()) {
    const at = Date.parse(one.at);
    if (at <= begin) break;
    if (at < until) found.push({ state, from: at, to: until });
    until = Math.min(until, at);
    state = shown(one.from, history[place + 1]?.reason === "forced");
  }
  if (begin < until) found.push({ state, from: begin, to: until });
  return found.reverse();
}

/**
 * What opened a breaker last: the newest transition into open by itself; null if it never did.
 * @param {Transition[]} history newest first
 * @returns {Transition | null}
 */
export const trip = (history) =>
  history.find((one) => one.to === "open" && (one.from === "closed" || one.from === "half_open")) ?? null;

/**
 * The address of a trace.
 * @param {string | null | undefined} template with `{trace_id}`
 * @param {string | null | undefined} traceId
 * @returns {string | null} null without a template, a trace, or for anything that is not a web address
 */
export function traceAddress(template, traceId) {
  if (!template || !traceId || !/^https?:\/\//i.test(template)) return null;
  return template.replaceAll("{trace_id}", encodeURIComponent(traceId));
}
