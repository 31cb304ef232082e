/**
 * The words, shapes and order of a breaker's states. Colours are in style.css and never say anything alone.
 * @module
 */
import { left } from "./format.js";

/** @typedef {"closed" | "open" | "half_open" | "forced_open" | "disabled" | "forced_closed"} Shown */

/**
 * From what wants attention first to what does not. `forced_closed` is `disabled` set by an operator.
 * @type {Readonly<Record<Shown, {label: string, rank: number, means: string}>>}
 */
export const STATES = Object.freeze({
  open: { label: "open", rank: 0, means: "refuses calls until the next probe" },
  forced_open: { label: "forced open", rank: 1, means: "an operator or the configuration refuses all calls" },
  half_open: { label: "half-open", rank: 2, means: "lets probes through and waits for their verdict" },
  forced_closed: { label: "forced closed", rank: 3, means: "an operator lets all calls through" },
  disabled: { label: "disabled", rank: 4, means: "counts nothing and lets all calls through" },
  closed: { label: "closed", rank: 5, means: "lets calls through and counts them" },
});

/**
 * @param {string} state as the API says it
 * @param {boolean} [isOverridden]
 * @returns {Shown}
 */
export function shown(state, isOverridden = false) {
  if (state === "disabled" && isOverridden) return "forced_closed";
  return state in STATES ? /** @type {Shown} */ (state) : "disabled";
}

/**
 * The one that wants attention most; `closed` for none.
 * @param {Shown[]} states
 * @returns {Shown}
 */
export function worst(states) {
  return states.reduce((one, other) => (STATES[other].rank < STATES[one].rank ? other : one), /** @type {Shown} */ ("closed"));
}

/**
 * What comes next: the probe, the end of an override, or all of the traffic.
 * @param {{[key: string]: any}} row a breaker as the API tells it
 * @param {number} now milliseconds since the epoch
 */
export function nextWords(row, now) {
  const until = (/** @type {string} */ instant) => left(Math.max(0, (Date.parse(instant) - now) / 1000));
  if (row.is_overridden) return row.override_until ? `ends in ${until(row.override_until)}` : "until ended by hand";
  if (row.is_probe_due) return "probe due: the next call";
  if (row.ramp_share !== null) return `ramping ${Math.round(row.ramp_share * 100)} %`;
  if (row.state === "open" && row.next_probe_at) return `probe in ${until(row.next_probe_at)}`;
  if (row.state === "half_open") return `${row.probes_in_flight} probing`;
  return "";
}

/** @type {Readonly<Record<string, string>>} */
export const REASONS = Object.freeze({
  consecutive_failures: "failures in a row",
  failure_rate: "failure rate over the threshold",
  slow_call_rate: "too many slow calls",
  probe_failed: "probe failed",
  probe_timeout: "no verdict of the probe in time",
  probe_succeeded: "probe succeeded",
  wait_elapsed: "waited long enough for a probe",
  peers: "other replicas have decided so",
  forced: "by an operator",
  reload: "by a new configuration",
  peers: "by what other replicas have seen",
});

/** @param {string} reason */
export const reasonWords = (reason) => REASONS[reason] ?? reason;
