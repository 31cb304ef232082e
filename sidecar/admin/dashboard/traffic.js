/**
 * Rates and quantiles from counters that were read again and again. Pure.
 *
 * A route is told only when it has changed, so a history is sparse: at any tick the last sample before it holds.
 * @module
 */
import { count, plural } from "./format.js";

/**
 * Counters at one moment; `at` in seconds of the process's own clock, `counts` per bucket of durations.
 * @typedef {{at: number, finished: number, errors: number, gone: number, counts: number[]}} Sample
 * @typedef {{seconds: number, finished: number, errors: number, gone: number, counts: number[]}} Passed what happened within a time
 */

/** Over how long rates and quantiles are told. */
export const WINDOW_SECONDS = 30;
/** How far back charts go: as far as the process remembers. */
export const CHART_SECONDS = 600;
/** Of looks that are older than a minute one each so many seconds is kept, as the process does. */
const COARSE_SECONDS = 4.5;

/**
 * Append a sample, and drop what nobody will ask for any more.
 * @param {Sample[]} history oldest first; changed in place
 * @param {Sample} sample
 */
export function remember(history, sample, keepSeconds = CHART_SECONDS) {
  const last = history.at(-1);
  if (last && sample.finished < last.finished) history.length = 0; // counters began anew
  history.push(sample);
  const oldest = sample.at - keepSeconds;
  let drop = 0;
  while (drop + 1 < history.length && history[drop + 1].at <= oldest) drop += 1;
  if (drop) history.splice(0, drop);
}

/**
 * Moments of looks: what is too old goes, what is older than a minute gets sparse.
 * @param {number[]} ticks oldest first
 * @returns {number[]}
 */
export function thinned(ticks) {
  const now = ticks.at(-1) ?? 0;
  /** @type {number[]} */
  const kept = [];
  ticks.forEach((at, i) => {
    const isNeeded = at > now - 60 || at - (kept.at(-1) ?? -Infinity) >= COARSE_SECONDS;
    const isInChart = at >= now - CHART_SECONDS || (ticks[i + 1] ?? now) > now - CHART_SECONDS;
    if (isNeeded && isInChart) kept.push(at);
  });
  return kept;
}

/**
 * The sum of several histories at each look.
 * @param {number[]} ticks
 * @param {Sample[][]} histories
 * @returns {Sample[]}
 */
export function summed(ticks, histories) {
  const places = histories.map(() => 0);
  return ticks.map((at) => {
    /** @type {Sample} */
    const sum = { at, finished: 0, errors: 0, gone: 0, counts: [] };
    histories.forEach((own, i) => {
      while (places[i] < own.length && own[places[i]].at <= at) places[i] += 1;
      if (places[i]) add(sum, own[places[i] - 1]);
    });
    return sum;
  });
}

/** @param {Sample} sum changed in place @param {Omit<Sample, "at">} one */
export function add(sum, one) {
  sum.finished += one.finished;
  sum.errors += one.errors;
  sum.gone += one.gone;
  one.counts.forEach((value, bucket) => {
    sum.counts[bucket] = (sum.counts[bucket] ?? 0) + value;
  });
}

/**
 * @param {Sample[]} history
 * @param {number} at
 * @returns {Sample | null} the counters as of `at`; null before the first sample
 */
export function asOf(history, at) {
  for (let i = history.length - 1; i >= 0; i -= 1) if (history[i].at <= at) return history[i];
  return null;
}

/**
 * What happened in the last seconds, or since the first sample if that is later.
 * @param {Sample[]} history
 * @param {number} now of the last look, which may be later than the last sample
 * @returns {Passed | null} null with nothing to compare
 */
export function passed(history, now, span = WINDOW_SECONDS) {
  const last = history.at(-1);
  if (!last) return null;
  const known = asOf(history, now - span);
  const first = known ?? history[0];
  const seconds = known ? span : now - first.at;
  if (seconds < 0.5) return null;
  return {
    seconds,
    finished: last.finished - first.finished,
    errors: last.errors - first.errors,
    gone: last.gone - first.gone,
    counts: last.counts.map((value, bucket) => value - (first.counts[bucket] ?? 0)),
  };
}

/**
 * @param {number[]} ticks moments of looks, oldest first
 * @param {Sample[]} history
 * @param {"finished" | "errors"} key
 * @returns {number[]} per second between each two looks; empty before the second
 */
export function rates(ticks, history, key = "finished") {
  const found = [];
  let place = 0;
  /** @type {Sample | null} */
  let before = null;
  for (let i = 0; i < ticks.length; i += 1) {
    while (place < history.length && history[place].at <= ticks[i]) place += 1;
    const now = place ? history[place - 1] : null;
    if (i > 0) {
      const seconds = ticks[i] - ticks[i - 1];
      found.push(before && now && seconds > 0 ? Math.max(0, now[key] - before[key]) / seconds : 0);
    }
    before = now;
  }
  return found;
}

/**
 * How many requests went wrong, and how many had lost their client before they ended: no errors.
 * @param {{finished: number, errors: number, gone: number}} of
 */
export const errorWords = ({ finished, errors, gone }) =>
  `${count(errors)} of ${count(finished)}${gone ? `, ${plural(gone, "client")} gone` : ""}`;

/**
 * Errors that are worth a look: one in a hundred, and more.
 * @param {Passed | null} seen
 */
export const isMany = (seen) => seen !== null && seen.finished > 0 && seen.errors >= seen.finished / 100;

/**
 * How many values a quantile needs to mean something: ten, and one beyond it.
 * @param {number} share
 */
export const needed = (share) => Math.max(10, Math.round(1 / (1 - share)));

/**
 * Seconds below which `share` of the values are, on a straight line within a bucket.
 * @param {number[]} counts per bucket, the last one open
 * @param {number[]} bounds upper bounds of all but the last
 * @param {number} share
 * @returns {{seconds: number, sign: "" | "<" | ">"} | null} null without any; signs for the first and the last bucket,
 *   of which only a bound is known
 */
export function quantile(counts, bounds, share) {
  const total = counts.reduce((sum, value) => sum + value, 0);
  if (total <= 0) return null;
  const wanted = share * total;
  let below = 0;
  for (let bucket = 0; bucket < bounds.length; bucket += 1) {
    const own = counts[bucket];
    if (own > 0 && below + own >= wanted) {
      if (bucket === 0) return { seconds: bounds[0], sign: "<" };
      const low = bounds[bucket - 1];
      return { seconds: low + ((bounds[bucket] - low) * (wanted - below)) / own, sign: "" };
    }
    below += own;
  }
  return { seconds: bounds[bounds.length - 1], sign: ">" };
}
