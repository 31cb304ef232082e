/**
 * Who calls whom: clients, this service, and what it asks, with how much passes and what the breakers say.
 * @module
 */
import { attribute, h, svg } from "./dom.js";
import { plural, rate } from "./format.js";
import { STATES, shown, worst } from "./states.js";
import { store } from "./store.js";
import { isMany, passed } from "./traffic.js";

/** @typedef {import("./states.js").Shown} Shown */
/** @typedef {{name: string, perSecond: number | null, state: Shown | null, isBad: boolean, routes: number}} Edge */

const WIDTH = 300;
const ROW = 40;
const BOX = { width: 112, height: 28 };
/** Upstreams that are drawn; the busiest first, what is open before all. */
const MOST = 12;

/** @returns {{node: Element, draw: () => void}} */
export function mapView() {
  const picture = svg("svg", { class: "map", role: "img" });
  const more = h("p", { class: "note" });
  let last = "";
  return {
    node: h("section", { class: "card mapped" }, h("h2", {}, "Who calls whom"), picture, more),
    draw() {
      const outward = edges("outbound");
      const inward = edges("inbound");
      const key = JSON.stringify([outward, inward, store.status?.service]);
      if (key === last) return;
      last = key;
      const drawn = outward.slice(0, MOST);
      const left = outward.length - drawn.length;
      more.textContent = left > 0 ? `and ${plural(left, "upstream")} more: see Routes` : "";
      more.hidden = left <= 0;
      paint(picture, together(inward), drawn);
    },
  };
}

/** What passes to each upstream of a direction, worst and busiest first. @param {"inbound" | "outbound"} direction @returns {Edge[]} */
function edges(direction) {
  /** @type {Map<string, {finished: number, errors: number, gone: number, seconds: number, states: Shown[], routes: number}>} */
  const found = new Map();
  for (const { row, history } of store.routes.values()) {
    if (row.direction !== direction) continue;
    const seen = passed(history, store.at);
    for (const name of Object.keys(row.upstreams)) {
      const one = found.get(name) ?? { finished: 0, errors: 0, gone: 0, seconds: 0, states: [], routes: 0 };
      found.set(name, one);
      one.routes += 1;
      one.finished += seen?.finished ?? 0;
      one.errors += seen?.errors ?? 0;
      one.seconds = Math.max(one.seconds, seen?.seconds ?? 0);
      for (const breaker of row.breakers) {
        const known = store.breakers.get(`${row.name}/${breaker.upstream}`);
        if (breaker.upstream === name) one.states.push(shown(breaker.state, known?.is_overridden));
      }
    }
  }
  const all = [...found].map(([name, one]) => ({
    name,
    perSecond: one.seconds ? one.finished / one.seconds : null,
    state: one.states.length ? worst(one.states) : null,
    isBad: isMany({ ...one, counts: [] }),
    routes: one.routes,
  }));
  const rank = (/** @type {Edge} */ edge) => (edge.state ? STATES[edge.state].rank : 99);
  return all.sort((a, b) => rank(a) - rank(b) || (b.perSecond ?? 0) - (a.perSecond ?? 0) || a.name.localeCompare(b.name));
}

/** What comes to the app as one. @param {Edge[]} inward @returns {Edge | null} */
function together(inward) {
  if (!inward.length) return null;
  const states = inward.flatMap((one) => (one.state ? [one.state] : []));
  return {
    name: "clients",
    perSecond: inward.reduce((sum, one) => sum + (one.perSecond ?? 0), 0),
    state: states.length ? worst(states) : null,
    isBad: inward.some((one) => one.isBad),
    routes: inward.reduce((sum, one) => sum + one.routes, 0),
  };
}

/** @param {Element} picture @param {Edge | null} inward @param {Edge[]} outward */
function paint(picture, inward, outward) {
  const service = store.status?.service || "this app";
  const height = ROW * 1.5 + BOX.height + outward.length * ROW + 6;
  attribute(picture, "viewBox", `0 0 ${WIDTH} ${height}`);
  attribute(picture, "aria-label", told(service, inward, outward));
  const middle = { x: 0, y: ROW * 1.5 };
  /** @type {SVGElement[]} */
  const parts = [];
  if (inward) {
    parts.push(...arrow({ x: BOX.width / 2, y: BOX.height }, { x: BOX.width / 2, y: middle.y }, inward, { x: BOX.width / 2 + 8, y: ROW + 8 }));
    parts.push(...box({ x: 0, y: 0 }, "clients", null));
  }
  outward.forEach((edge, i) => {
    const y = middle.y + BOX.height + 10 + i * ROW;
    const from = { x: 14, y: middle.y + BOX.height };
    const to = { x: WIDTH - BOX.width, y: y + BOX.height / 2 };
    parts.push(...arrow(from, to, edge, { x: 22, y: to.y - 5 }));
    parts.push(...box({ x: WIDTH - BOX.width, y }, edge.name, edge.state));
  });
  parts.push(...box(middle, service, inward?.state ?? null));
  picture.replaceChildren(...parts);
}

/** @param {{x: number, y: number}} at @param {string} name @param {Shown | null} state */
function box(at, name, state) {
  const words = name.length > 16 ? `${name.slice(0, 15)}…` : name;
  return [
    svg("rect", { ...at, ...BOX, rx: 5, class: "box", "data-state": state }, svg("title", {}, name)),
    svg("text", { x: at.x + BOX.width / 2, y: at.y + 18, "text-anchor": "middle", class: "who-name" }, words),
  ];
}

/** Down from the one, and across to the other. @param {{x: number, y: number}} from @param {{x: number, y: number}} to @param {Edge} edge @param {{x: number, y: number}} at of the words */
function arrow(from, to, edge, at) {
  const way = from.x === to.x ? `M${from.x} ${from.y}V${to.y}` : `M${from.x} ${from.y}V${to.y}H${to.x}`;
  const head =
    from.x === to.x ? `M${to.x - 4} ${to.y - 6}L${to.x} ${to.y}L${to.x + 4} ${to.y - 6}` : `M${to.x - 6} ${to.y - 4}L${to.x} ${to.y}L${to.x - 6} ${to.y + 4}`;
  return [
    svg("path", { d: way + head, class: "edge", "data-state": edge.state, "data-bad": edge.isBad }),
    svg("text", { ...at, class: "much" }, wordsOf(edge)),
  ];
}

/** @param {Edge} edge */
function wordsOf(edge) {
  const state = edge.state && edge.state !== "closed" ? `, ${STATES[edge.state].label}` : "";
  return `${edge.perSecond === null ? "…" : rate(edge.perSecond)}/s${state}`;
}

/** @param {string} service @param {Edge | null} inward @param {Edge[]} outward */
function told(service, inward, outward) {
  const parts = outward.map((edge) => `${service} calls ${edge.name}: ${wordsOf(edge)}`);
  if (inward) parts.unshift(`Clients call ${service}: ${wordsOf(inward)}`);
  return parts.join("; ") || "Nothing is known yet";
}
