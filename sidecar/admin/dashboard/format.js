/**
 * Numbers and instants as people read them. Pure; an unknown value is an en dash.
 * @module
 */

export const NONE = "–";

/** @param {number | null | undefined} perSecond */
export function rate(perSecond) {
  if (perSecond == null) return NONE;
  if (perSecond === 0) return "0";
  if (perSecond < 0.1) return "<0.1";
  if (perSecond < 99.95) return perSecond.toFixed(1);
  return count(Math.round(perSecond));
}

/** @param {number | null | undefined} share 0..1 */
export function percent(share) {
  if (share == null) return NONE;
  if (share === 0) return "0 %";
  const value = share * 100;
  if (value < 0.1) return "<0.1 %";
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

/** @param {number | null | undefined} seconds a latency or a budget */
export function latency(seconds) {
  if (seconds == null) return NONE;
  const ms = seconds * 1000;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return `${seconds < 9.95 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
}

/** @param {number | null | undefined} seconds a longer time: `42 s`, `3 min 5 s`, `2 h 4 min`, `5 d 3 h` */
export function duration(seconds) {
  if (seconds == null) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  const units = /** @type {const} */ ([["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]);
  for (let i = 0; i < units.length; i += 1) {
    const [unit, size] = units[i];
    if (whole >= size) {
      const next = units[i + 1];
      const rest = next ? Math.floor((whole % size) / next[1]) : 0;
      return next && rest ? `${Math.floor(whole / size)} ${unit} ${rest} ${next[0]}` : `${Math.floor(whole / size)} ${unit}`;
    }
  }
  return "0 s";
}

/** @param {number | null | undefined} seconds what is left until something, to a tenth below ten seconds */
export function left(seconds) {
  if (seconds == null) return NONE;
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

/** @param {number | null | undefined} value a whole number, in groups of three */
export function count(value) {
  if (value == null) return NONE;
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, " ");
}

/**
 * @param {string | number | null | undefined} instant ISO 8601, or milliseconds since the epoch
 * @returns {string} the local time of day, with the date if it is another day
 */
export function clock(instant, now = Date.now()) {
  if (instant == null) return NONE;
  const at = new Date(instant);
  if (Number.isNaN(at.getTime())) return NONE;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const isToday = at.toDateString() === new Date(now).toDateString();
  return isToday ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** Date, time and zone, for what is compared with other logs. @param {number} instant milliseconds since the epoch */
export function stamp(instant) {
  const at = new Date(instant);
  if (Number.isNaN(at.getTime())) return NONE;
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const zone = -at.getTimezoneOffset();
  const sign = zone < 0 ? "-" : "+";
  const away = `${sign}${two(Math.floor(Math.abs(zone) / 60))}:${two(Math.abs(zone) % 60)}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())} ${zone === 0 ? "UTC" : away}`;
}

/** @param {string | null | undefined} instant */
export function ago(instant, now = Date.now()) {
  if (instant == null) return NONE;
  const seconds = (now - Date.parse(instant)) / 1000;
  return Number.isNaN(seconds) ? NONE : seconds < 1 ? "now" : `${duration(seconds)} ago`;
}

/** @param {number} n @param {string} one @param {string} [many] */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
