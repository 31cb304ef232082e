/**
 * All breakers: state, the last ten minutes, what tripped them, the candidate beside, and an override by hand.
 * @module
 */
import { limitWords } from "./adaptive.js";
import { askOverride } from "./confirm.js";
import { attribute, h, text } from "./dom.js";
import { ago, clock, count, percent } from "./format.js";
import { button, lineBar, routeName, stateBadge, traceLink, transitionWords } from "./parts.js";
import { STATES, nextWords, shown } from "./states.js";
import { store } from "./store.js";
import { Table } from "./table.js";
import { trip } from "./timeline.js";

/** @typedef {import("./store.js").Data} Data */

/** @param {Data} row */
const stateOf = (row) => shown(row.state, row.is_overridden);

/** The whole of a breaker, if it was read. @param {Data} row */
const detail = (row) => store.details.get(row.route)?.find((one) => one.upstream === row.upstream);

/** Buttons for what can be done to a breaker now. */
export function overrideButtons() {
  const node = h("span", { class: "overrides" });
  let last = "";
  return {
    node,
    /** @param {Data} row */
    update(row) {
      const isShared = Boolean(row.fleet);
      const key = `${row.route}/${row.upstream} ${row.state} ${row.is_overridden} ${isShared}`;
      if (key === last) return;
      last = key;
      const { route, upstream, is_overridden: isForced, state } = row;
      const focused = node.contains(document.activeElement);
      const about = `breaker of ${route} and ${upstream}`;
      node.replaceChildren(
        ...[
          !(isForced && state === "forced_open") && button("Open…", () => askOverride(route, upstream, "open", isShared), { title: `Force open: ${about}` }),
          !(isForced && state === "forced_closed") && button("Close…", () => askOverride(route, upstream, "close", isShared), { title: `Force closed: ${about}` }),
          isForced && button("Auto…", () => askOverride(route, upstream, "auto", isShared), { title: `Automatic: ${about}` }),
        ].filter((one) => one !== false),
      );
      if (focused) /** @type {HTMLElement} */ (node.firstElementChild)?.focus();
    },
  };
}

/** Why it is not closed; of a closed one what opened it last, in words and with its trace. @param {Element} node */
export function tripCell(node) {
  let last = "";
  return (/** @type {Data} */ row) => {
    const one = detail(row) && trip(/** @type {Data} */ (detail(row)).history);
    const template = store.config?.active.process["admin.trace_url"];
    const key = one ? `${one.sequence} ${template} ${row.why}` : row.why || (row.generation ? "…" : "–");
    if (key === last) return;
    last = key;
    if (!one) {
      node.replaceChildren(row.why || (row.generation && !detail(row) ? "…" : "–"));
      return;
    }
    const cause = one.causes.at(-1);
    node.replaceChildren(h("span", { title: clock(one.at) }, row.why || `last: ${transitionWords(one)}`), " ", cause ? traceLink(cause, template) : "");
  };
}

/** @type {import("./table.js").Column<Data>[]} */
const COLUMNS = [
  {
    id: "state",
    label: "State",
    value: (row) => STATES[stateOf(row)].rank,
    cell: (td) => {
      const badge = stateBadge();
      const next = h("span", { class: "way next" });
      td.append(badge.node, next);
      return (row) => {
        badge.update(stateOf(row));
        text(next, [nextWords(row, store.now()), row.fleet?.told].filter(Boolean).join("; "));
      };
    },
  },
  {
    id: "name",
    label: "Route → upstream",
    isWide: true,
    value: (row) => `${row.route}/${row.upstream}`,
    cell: (td) => {
      const tell = routeName(td);
      return (row) => tell(row.route, `→ ${row.upstream}`);
    },
  },
  {
    id: "line",
    label: "Time line",
    hint: "Since the start, at most the last ten minutes; the higher, the less passes",
    cell: (td) => {
      const bar = lineBar();
      td.append(bar.node);
      return (row) => {
        bar.update(detail(row)?.history ?? [], stateOf(row), store.lineSeconds, store.now());
      };
    },
  },
  {
    id: "since",
    label: "Since",
    isNumber: true,
    isDescending: true,
    hint: "The last change of state",
    value: (row) => row.last_transition_at,
    cell: (td) => (row) => {
      text(td, row.last_transition_at ? ago(row.last_transition_at, store.now()) : "start");
      attribute(td, "title", row.last_transition_at ? clock(row.last_transition_at) : null);
    },
  },
  {
    id: "failing",
    label: "Failing",
    isNumber: true,
    isDescending: true,
    hint: "Failure rate of the sliding window, and failures in a row",
    value: (row) => row.failure_rate,
    cell: (td) => {
      const share = h("span");
      const streak = h("span", { class: "way" });
      td.append(share, streak);
      return (row) => {
        text(share, percent(row.failure_rate));
        text(streak, `${count(row.failure_count)} in a row`);
      };
    },
  },
  {
    id: "rejected",
    label: "Rejected",
    isNumber: true,
    isDescending: true,
    hint: "Calls refused since the breaker's birth",
    value: (row) => row.rejected,
    cell: (td) => (row) => text(td, count(row.rejected)),
  },
  {
    id: "trip",
    label: "Why",
    hint: "What opened it and what its last probe showed, or who holds it; of a closed one what opened it last. Below it the adaptive limit of the upstream",
    cell: (td) => {
      const why = h("span");
      const limit = h("span", { class: "way" });
      td.append(why, limit);
      const tell = tripCell(why);
      return (row) => {
        tell(row);
        text(limit, limitWords(store.upstreams.get(row.upstream)?.adaptive, store.now()));
      };
    },
  },
  {
    id: "candidate",
    label: "Candidate",
    hint: "What the second policy would say; it is counted and never acts",
    value: (row) => (row.candidate_state ? STATES[shown(row.candidate_state)].rank : null),
    cell: (td) => {
      const badge = stateBadge();
      const none = h("span", {}, "–");
      td.append(badge.node, none);
      return (row) => {
        badge.node.hidden = !row.candidate_state;
        none.hidden = Boolean(row.candidate_state);
        if (row.candidate_state) badge.update(shown(row.candidate_state));
      };
    },
  },
  {
    id: "act",
    label: "Override",
    cell: (td) => {
      const buttons = overrideButtons();
      td.append(buttons.node);
      return (row) => buttons.update(row);
    },
  },
];

/** @returns {{node: Element, draw: () => void}} */
export function breakersView() {
  /** @type {Table<Data>} */
  const table = new Table({
    label: "Breakers",
    columns: COLUMNS,
    order: "state",
    key: (row) => `${row.route}/${row.upstream}`,
    words: (row) => `${row.route} ${row.upstream}`,
    states: (row) => [stateOf(row)],
    empty: "There is no breaker.",
  });
  return {
    node: table.node,
    draw() {
      table.update([...store.breakers.values()]);
      store.visible.routes = table.visible.map((key) => key.slice(0, key.indexOf("/")));
    },
  };
}
