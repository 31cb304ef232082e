/**
 * The small pieces that several views show: badges, charts, time lines, links, buttons.
 * @module
 */
import { attribute, h, icon, setIcon, svg, text } from "./dom.js";
import { clock, duration, rate } from "./format.js";
import { STATES, reasonWords } from "./states.js";
import { periods, traceAddress } from "./timeline.js";

/** @typedef {import("./states.js").Shown} Shown */

/** A state with its shape, its word and its colour. */
export function stateBadge() {
  const shape = icon("closed");
  const word = h("span");
  const node = h("span", { class: "state" }, shape, word);
  return {
    node,
    /** @param {Shown} state @param {string} [more] */
    update(state, more = "") {
      attribute(node, "data-state", state);
      attribute(node, "title", STATES[state].means);
      setIcon(shape, state);
      text(word, more ? `${STATES[state].label} ${more}` : STATES[state].label);
    },
  };
}

/** @typedef {{node: Element, update: (kind: "good" | "bad" | "wait", words: string) => void}} Mark */

/** Good, bad or waiting: a mark with a word. @returns {Mark} */
export function markBadge() {
  const shape = icon("good");
  const word = h("span");
  const node = h("span", { class: "mark" }, shape, word);
  return {
    node,
    /** @param {"good" | "bad" | "wait"} kind @param {string} words */
    update(kind, words) {
      attribute(node, "data-mark", kind);
      setIcon(shape, kind);
      text(word, words);
    },
  };
}

/** Requests a second as an area, errors as bars from below. @param {number} width @param {number} height */
export function chart(width, height) {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const bars = svg("path", { class: "errors" });
  const node = svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" },
    area,
    line,
    bars,
  );
  return {
    node,
    /**
     * @param {number[]} ticks moments of looks, one more than rates @param {number[]} all per second, oldest first
     * @param {number[]} errors the same @param {number} seconds that the whole width stands for
     */
    update(ticks, all, errors, seconds) {
      const peak = Math.max(...all, 0);
      attribute(node, "aria-label", said(all, errors, peak));
      const end = ticks.at(-1) ?? 0;
      const x = (/** @type {number} */ i) => (width - ((end - ticks[i + 1]) / seconds) * width).toFixed(1);
      const y = (/** @type {number} */ value) => (height - 1.5 - (peak ? value / peak : 0) * (height - 4)).toFixed(1);
      const points = all.map((value, i) => `${x(i)} ${y(value)}`);
      attribute(line, "d", points.length > 1 ? `M${points.join("L")}` : null);
      attribute(area, "d", points.length > 1 ? `M${x(0)} ${height}L${points.join("L")}L${width} ${height}Z` : null);
      const shown = errors.flatMap((value, i) => (value > 0 ? [`M${x(i)} ${height}V${y(value)}`] : []));
      attribute(bars, "d", shown.length ? shown.join("") : null);
    },
  };
}

/** @param {number[]} all @param {number[]} errors @param {number} peak */
function said(all, errors, peak) {
  if (all.length < 2) return "Not enough data for a chart yet";
  const failed = errors.some((value) => value > 0) ? `, errors up to ${rate(Math.max(...errors))} a second` : "";
  return `Requests a second: now ${rate(all.at(-1))}, at most ${rate(peak)}${failed}`;
}

/** How much of the height a state takes, so that a line can be read without its colours. @type {Record<Shown, number>} */
const HEIGHTS = { closed: 4, disabled: 4, forced_closed: 7, half_open: 10, open: 16, forced_open: 16 };

/** The latest time of a breaker as a bar. */
export function lineBar() {
  const width = 200;
  const node = svg("svg", { class: "timeline", viewBox: `0 0 ${width} 16`, preserveAspectRatio: "none", role: "img" });
  let last = "";
  return {
    node,
    /** @param {import("./timeline.js").Transition[]} history newest first @param {Shown} state @param {number} seconds @param {number} end */
    update(history, state, seconds, end) {
      const begin = end - seconds * 1000;
      const found = periods(history, state, begin, end);
      const x = (/** @type {number} */ at) => ((at - begin) / (end - begin)) * width;
      const key = found.map((one) => `${one.state}${x(one.from).toFixed(1)}`).join();
      if (key === last) return;
      last = key;
      const told = found.map((one) => `${STATES[one.state].label} ${duration((one.to - one.from) / 1000)}`);
      attribute(node, "aria-label", `The last ${duration(seconds)}: ${told.join(", then ")}`);
      node.replaceChildren(
        ...found.map((one) => {
          const height = HEIGHTS[one.state];
          const from = x(one.from);
          const box = { x: from.toFixed(2), y: 16 - height, width: Math.max(1.2, x(one.to) - from).toFixed(2), height };
          const words = `${STATES[one.state].label}, ${clock(one.from)} to ${clock(one.to)}`;
          return svg("rect", { ...box, class: "period", "data-state": one.state }, svg("title", {}, words));
        }),
      );
    },
  };
}

/**
 * The exchange that caused something, as a link to its trace where there is an address for it.
 * @param {any} cause as the API tells it
 * @param {string | undefined} template
 */
export function traceLink(cause, template) {
  const address = traceAddress(template, cause.trace_id);
  const words = h("code", {}, cause.trace_id.slice(0, 8) || "no trace");
  const title = `${causeWords(cause)}, trace ${cause.trace_id}, request ${cause.request_id}`;
  if (!address) return h("span", { class: "trace", title }, words);
  const label = `${cause.trace_id.slice(0, 8)}: its trace, in another tab`;
  const attributes = { class: "trace", href: address, target: "_blank", rel: "noopener noreferrer", title };
  return h("a", { ...attributes, "aria-label": label }, words, icon("link"));
}

/** A transition in words: what the process says of it tells more than its reason. @param {import("./timeline.js").Transition} one */
export function transitionWords(one) {
  if (!one.why) return reasonWords(one.reason);
  return one.to === "open" && one.from === "closed" ? `${reasonWords(one.reason)}: ${one.why}` : one.why;
}

/** A cause in words, for who hovers over it. @param {{error_type: string | null, status: number | null, endpoint: string | null, detail: string | null}} cause */
const causeWords = ({ error_type: error, status, endpoint, detail }) =>
  [error ?? status ?? "no answer", endpoint, detail && `(${detail})`].filter(Boolean).join(" ");

/** A route's name, which leads to it, above a line of more. @param {Element} node */
export function routeName(node) {
  const link = h("a", { class: "name" });
  const way = h("span", { class: "way" });
  node.append(link, way);
  return (/** @type {string} */ name, /** @type {string} */ more = "") => {
    text(link, name);
    attribute(link, "href", `#/route/${encodeURIComponent(name)}`);
    text(way, more);
  };
}

/** @param {string} label @param {EventListener} onclick @param {{icon?: string, kind?: string, title?: string}} [more] */
export function button(label, onclick, more = {}) {
  const attributes = { type: "button", class: `button ${more.kind ?? ""}`, title: more.title, onclick };
  return h("button", attributes, more.icon && icon(more.icon), h("span", {}, label));
}

/** A term and its value in a list of facts. @param {string} term @param {Node} value */
export const fact = (term, value) => h("div", { class: "fact" }, h("dt", {}, term), h("dd", {}, value));
