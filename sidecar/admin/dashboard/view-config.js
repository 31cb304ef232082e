/**
 * The configuration in use: which one, what the last reload changed or why it was refused, and what waits.
 * @module
 */
import { h } from "./dom.js";
import { clock, count, duration, plural } from "./format.js";
import { fact, markBadge } from "./parts.js";
import { store } from "./store.js";

/** @typedef {import("./store.js").Data} Data */

/** @returns {{node: Element, draw: () => void}} */
export function configView() {
  const node = h("div", { class: "cards" });
  /** @type {unknown} */
  let last = null;
  const age = h("span");
  return {
    node,
    draw() {
      const { config, status } = store;
      if (status) age.textContent = duration(status.config.age_seconds);
      if (config === last) return;
      last = config;
      node.replaceChildren(...(config ? [stack(summary(config, age), processKeys(config)), stack(lastReload(config), lastChange(config))] : [h("p", {}, "Asking…")]));
    },
  };
}

/** @param {...Node} cards */
const stack = (...cards) => h("div", { class: "stack" }, ...cards);

/** @param {Data} config @param {Node} age */
function summary(config, age) {
  const mark = markBadge();
  if (config.is_last_reload_successful) mark.update("good", "in use");
  else mark.update("bad", "in use; a newer one was refused");
  return h(
    "section",
    { class: "card" },
    h("h2", {}, `Generation ${config.generation}`),
    mark.node,
    h(
      "dl",
      { class: "facts" },
      fact("Files", h("code", {}, config.files.join(", ") || "none")),
      fact("In use for", age),
      fact("Reloads", h("span", {}, `${count(config.reloads_succeeded)} taken, ${count(config.reloads_failed)} refused`)),
      config.pending_restart.length ? fact("Waits for a restart", h("code", {}, config.pending_restart.join(", "))) : fact("Waits for a restart", h("span", {}, "nothing")),
    ),
    config.problems.length ? problems(config.problems) : null,
  );
}

/** @param {string[]} lines */
function problems(lines) {
  const title = `${plural(lines.length, "problem")} in the configuration that was refused`;
  return h("div", { class: "trouble" }, h("strong", {}, title), h("pre", { tabindex: "0" }, lines.join("\n")));
}

/** @param {Data} config */
function lastReload(config) {
  const one = config.last_reload;
  if (!one) return h("section", { class: "card" }, h("h2", {}, "Last reload"), h("p", {}, "None since the start."));
  const mark = markBadge();
  mark.update(one.is_success ? "good" : "bad", one.is_success ? "taken" : "refused: nothing has changed");
  const isSame = one.is_success && one.at !== config.last_change?.at;
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Last reload"),
    mark.node,
    h("p", {}, when(one)),
    isSame ? h("p", {}, "It found nothing that differs.") : null,
  );
}

/** @param {Data} one a reload */
const when = (one) => `${clock(one.at)}, by ${one.trigger}, in ${(one.seconds * 1000).toFixed(0)} ms`;

/** @param {Data} config */
function lastChange(config) {
  const one = config.last_change;
  if (!one) return h("section", { class: "card" }, h("h2", {}, "Last change"), h("p", {}, "None since the start."));
  const { breakers } = one;
  return h(
    "section",
    { class: "card" },
    h("h2", {}, `Last change: generation ${one.generation}`),
    h("p", { class: "way" }, `${when(one)} · breakers: ${count(breakers.kept)} kept, ${count(breakers.reset)} reset`),
    difference(one.diff),
  );
}

/** @param {Data} diff */
function difference(diff) {
  const groups = /** @type {const} */ ([["routes", "Route"], ["upstreams", "Upstream"], ["listeners", "Listener"]]);
  const items = groups.flatMap(([key, label]) => diff[key].map((/** @type {Data} */ item) => changedItem(label, item)));
  if (diff.process.length) items.push(h("li", {}, h("strong", {}, "Process"), changes(diff.process)));
  if (diff.is_order_changed) items.push(h("li", {}, "Routes stand in another order."));
  return items.length ? h("ul", { class: "diff" }, ...items) : h("p", {}, "Nothing differs.");
}

/** @param {string} label @param {Data} item */
function changedItem(label, item) {
  const signs = /** @type {Record<string, string>} */ ({ added: "+", removed: "−", changed: "~" });
  const fates = item.breakers.map((/** @type {Data} */ one) => `breaker ${one.upstream} ${one.is_kept ? "kept" : "reset"}: ${one.why}`);
  return h(
    "li",
    { "data-kind": item.kind },
    h("span", { class: "sign", "aria-hidden": "true" }, signs[item.kind] ?? "·"),
    h("strong", {}, `${label} ${item.name} `),
    h("span", { class: "way" }, item.kind),
    changes(item.changes),
    ...fates.map((/** @type {string} */ words) => h("div", { class: "way" }, words)),
  );
}

/** @param {Data[]} all */
function changes(all) {
  const shownValue = (/** @type {string | null} */ value) => (value === null ? "unset" : value);
  return h(
    "ul",
    {},
    ...all.map((one) =>
      h("li", {}, h("code", {}, `${one.key}: `), h("del", {}, shownValue(one.old)), " → ", h("ins", {}, shownValue(one.new))),
    ),
  );
}

/** @param {Data} config */
function processKeys(config) {
  return h("section", { class: "card" }, h("h2", {}, "Process"), keys(config.active.process));
}

/** Keys and values as a file would say them. @param {Record<string, string>} all */
export function keys(all) {
  return h(
    "dl",
    { class: "facts keys" },
    ...Object.entries(all).map(([key, value]) => fact(key, h("code", {}, String(value)))),
  );
}
