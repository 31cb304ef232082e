/**
 * Requests as they end, one line each. The process sends them while somebody looks, and not more than can be read.
 * @module
 */
import { Problem, part } from "./api.js";
import { List, h, text } from "./dom.js";
import { count, latency, stamp } from "./format.js";
import { store } from "./store.js";
import { follow } from "./stream.js";

/** @typedef {import("./store.js").Data} Data */
/** @typedef {{number: number, data: Data}} Line */

/** Lines that are kept. */
const MOST = 200;

/** @param {Line} line */
function linePart({ data }) {
  const isBad = data.status >= 500 || data.reason;
  const what = `${data.method} ${data.host}${data.path}`;
  const more = [
    data.budget_ms === undefined ? "" : `budget ${count(data.budget_ms)} ms (${data.budget_source})`,
    data.breaker && data.breaker !== "closed" ? `breaker ${data.breaker.replace("_", " ")}` : "",
    data.grpc_status ?? "",
    data.reason ?? "",
    data.fallback ? `fallback ${data.fallback}` : "",
    data.attempts > 1 ? `${data.attempts} attempts` : "",
    data.endpoint ? `→ ${data.endpoint}` : "",
  ].filter(Boolean);
  return {
    node: h(
      "li",
      { class: "entry tapped", "data-bad": Boolean(isBad) },
      h("time", { datetime: data.at }, stamp(Date.parse(data.at))),
      h("div", {}, h("strong", {}, String(data.status)), ` ${latency(data.duration_ms / 1000)} `, h("span", { class: "name" }, data.route ?? "(no route)"), " ", h("code", {}, what)),
      h("div", { class: "way" }, more.join(" · ")),
    ),
    update: () => {},
  };
}

/** @returns {{node: Element, draw: () => void}} */
export function tapView() {
  /** @type {Line[]} */
  let lines = [];
  let number = 0;
  let lost = 0;
  /** @type {AbortController | null} */
  let reading = null;
  const route = h("select", { "aria-label": "Route" }, h("option", { value: "" }, "all routes"));
  const slow = h("select", { "aria-label": "How slow" }, ...["", "100ms", "500ms", "1s", "5s"].map((one) => h("option", { value: one }, one ? `at least ${one}` : "any time")));
  const open = h("input", { type: "checkbox" });
  const press = h("button", { type: "submit", class: "button primary" }, "Start");
  const says = h("p", { class: "note", role: "status" }, "Nothing is read until you start.");
  const items = h("ol", { class: "feed", "aria-label": "Requests, the newest first" });
  /** @type {List<Line>} */
  const list = new List(items, (line) => String(line.number), linePart);

  /** @param {import("./stream.js").Told} one */
  function heard(one) {
    const data = JSON.parse(one.data);
    if (one.kind === "lost") lost += data.count;
    else {
      number += 1;
      lines = [{ number, data }, ...lines].slice(0, MOST);
    }
    store.changed();
  }

  async function read() {
    const abort = new AbortController();
    reading = abort;
    const query = [route.value && `route=${part(route.value)}`, slow.value && `slow=${slow.value}`, open.checked && "open=true"];
    text(press, "Stop");
    lines = [];
    lost = 0;
    text(says, "Reading.");
    try {
      await follow(`/tap?${query.filter(Boolean).join("&")}`, heard, abort.signal);
      text(says, "The process has ended the reading.");
    } catch (error) {
      if (abort.signal.aborted) text(says, "Stopped.");
      else text(says, error instanceof Problem ? `Refused (${error.status}) ${error.message}` : "The connection broke.");
    } finally {
      reading = null;
      text(press, "Start");
    }
  }

  const form = h(
    "form",
    {
      class: "toolbar",
      onsubmit: (event) => {
        event.preventDefault();
        if (reading) reading.abort();
        else void read();
      },
    },
    route,
    slow,
    h("label", { class: "check" }, open, " breaker not closed"),
    press,
  );
  return {
    node: h("section", { class: "activity tap" }, h("h2", {}, "Tap: requests as they end"), form, says, items),
    draw() {
      const names = [...store.routes.keys()];
      if (route.options.length !== names.length + 1) {
        const kept = route.value;
        route.replaceChildren(h("option", { value: "" }, "all routes"), ...names.map((name) => h("option", { value: name }, name)));
        route.value = names.includes(kept) ? kept : "";
      }
      list.update(lines);
      if (reading && lost) text(says, `Reading. ${count(lost)} more were too many to show.`);
    },
  };
}
