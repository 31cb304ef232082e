/**
 * The process: its listeners and its supervised parts.
 * @module
 */
import { List, attribute, h, text } from "./dom.js";
import { count } from "./format.js";
import { fact, markBadge } from "./parts.js";
import { store } from "./store.js";

/** @typedef {import("./store.js").Data} Data */

/** @type {Record<string, "good" | "bad" | "wait">} */
const MARKS = { running: "good", new: "wait", backing_off: "wait", failed: "bad", stopped: "wait" };

function partRow() {
  const mark = markBadge();
  const cells = ["Part", "Restarts", "Mailbox", "Overflows", "Last error"].map((label) => h("td", { "data-label": label }));
  const [name, restarts, mailbox, overflows, error] = cells;
  for (const cell of [restarts, mailbox, overflows]) cell.className = "number";
  name.className = "wide";
  return {
    node: h("tr", {}, h("td", { "data-label": "State" }, mark.node), ...cells),
    /** @param {Data} part */
    update(part) {
      mark.update(MARKS[part.state] ?? "bad", part.state.replace("_", " "));
      text(name, part.name);
      text(restarts, count(part.restarts));
      attribute(restarts, "data-bad", part.restarts > 0);
      text(mailbox, `${count(part.mailbox)} / ${count(part.mailbox_capacity)}`);
      text(overflows, count(part.mailbox_overflows));
      text(error, part.last_error ?? "–");
    },
  };
}

/** @returns {{node: Element, draw: () => void}} */
export function processView() {
  const body = h("tbody");
  /** @type {List<Data>} */
  const list = new List(body, (part) => part.name, partRow);
  const heads = ["State", "Part", "Restarts", "Mailbox", "Overflows", "Last error"];
  const number = new Set(["Restarts", "Mailbox", "Overflows"]);
  const head = h("tr", {}, ...heads.map((label) => h("th", { scope: "col", class: number.has(label) && "number" }, label)));
  const facts = h("dl", { class: "facts" });
  let last = "";
  return {
    node: h(
      "div",
      { class: "cards" },
      h("section", { class: "card whole" }, h("h2", {}, "Supervised parts"), h("table", { class: "grid" }, h("thead", {}, head), body)),
      h("section", { class: "card" }, h("h2", {}, "Listeners and events"), facts),
    ),
    draw() {
      const { status } = store;
      if (!status) return;
      list.update(status.parts);
      const told = [
        ...Object.entries(status.listeners),
        ["log level", status.log_level],
        ["readers of events", count(status.events.readers)],
        ["readers refused, as there were too many", count(status.events.refused)],
        ["events missed by slow readers", count(status.events.dropped)],
      ];
      const key = JSON.stringify(told);
      if (key === last) return;
      last = key;
      facts.replaceChildren(...told.map(([name, value]) => fact(name, h("code", {}, String(value)))));
    },
  };
}
