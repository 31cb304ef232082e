/**
 * What happened, newest first: transitions with their traces, reloads, other lives of the process.
 * @module
 */
import { List, attribute, h, icon } from "./dom.js";
import { count, stamp } from "./format.js";
import { markBadge, stateBadge, traceLink, transitionWords } from "./parts.js";
import { shown } from "./states.js";
import { store } from "./store.js";

/** @typedef {import("./store.js").Data} Data */
/** @typedef {{kind: string, at: number, data: Data}} Entry */

/** @param {Entry} entry */
function entryPart(entry) {
  const at = h("time", { datetime: new Date(entry.at).toISOString() }, stamp(entry.at));
  const node = h("li", { class: `entry ${entry.kind}` }, at, content(entry));
  return { node, update: () => {} };
}

/** @param {Entry} entry */
function content({ kind, data }) {
  if (kind === "transition") return transitionContent(data);
  if (kind === "note") return h("div", {}, data.text);
  const mark = markBadge();
  mark.update(data.is_success ? "good" : "bad", data.is_success ? `configuration ${data.generation} taken` : "configuration refused");
  const { added, removed, changed } = data.routes;
  const words = data.is_success
    ? `Routes: ${count(added)} added, ${count(removed)} removed, ${count(changed)} changed`
    : String(data.problems[0] ?? "").split("\n")[0];
  return h("div", {}, mark.node, h("div", { class: "way" }, words));
}

/** @param {Data} data */
export function transitionContent(data) {
  const badge = stateBadge();
  badge.update(shown(data.to, data.reason === "forced"));
  const template = store.config?.active.process["admin.trace_url"];
  const cause = data.causes.at(-1);
  const more = data.causes.length > 1 ? ` and ${data.causes.length - 1} more` : "";
  return h(
    "div",
    {},
    h(
      "div",
      {},
      badge.node,
      " ",
      h("a", { href: `#/route/${encodeURIComponent(data.route)}`, class: "name" }, data.route),
    ),
    h("div", { class: "way" }, `→ ${data.upstream} · ${transitionWords(data)}`, cause ? " · " : "", cause ? traceLink(cause, template) : "", more),
  );
}

/** @returns {{node: Element, draw: () => void}} */
export function activityView() {
  const items = h("ol", { class: "feed" });
  const empty = h("p", { class: "empty" }, icon("closed"), " Nothing has happened yet: no breaker has changed, nothing was reloaded.");
  /** @type {List<Entry>} */
  const list = new List(items, (one) => `${one.kind} ${one.at} ${one.data.route ?? ""}/${one.data.upstream ?? ""} ${one.data.sequence ?? ""}`, entryPart);
  let shownKey = "";
  return {
    node: h("section", { class: "activity" }, h("h2", {}, "Activity"), empty, items),
    draw() {
      attribute(empty, "hidden", store.feed.length > 0);
      const first = store.feed[0];
      const key = `${store.feed.length} ${first?.at} ${first?.data.sequence} ${Boolean(store.config)}`;
      if (key === shownKey) return;
      shownKey = key;
      list.update(store.feed.slice(0, 100));
    },
  };
}
