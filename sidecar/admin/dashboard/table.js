/**
 * A table of many rows: search, filter by state, order, pages of fifty.
 *
 * While the pointer or the focus is in it, rows stay where they are, so that none moves away under a hand.
 * @module
 */
import { List, attribute, h, icon, text } from "./dom.js";
import { count } from "./format.js";
import { matches, ordered, page } from "./select.js";
import { STATES } from "./states.js";

export const PAGE_ROWS = 50;

/**
 * @template T
 * @typedef {{
 *   id: string, label: string, hint?: string, isNumber?: boolean, isWide?: boolean,
 *   value?: (row: T) => number | string | null, isDescending?: boolean,
 *   cell: (td: HTMLTableCellElement) => (row: T) => void,
 * }} Column `cell` fills an empty cell and returns what brings it up to date; without `value` it cannot be ordered by
 */

/**
 * @template T
 * @typedef {{
 *   label: string, columns: Column<T>[], order: string,
 *   key: (row: T) => string, words: (row: T) => string,
 *   states?: (row: T) => import("./states.js").Shown[], empty: string,
 * }} Design `words` is what a search looks in; `order` the column that it begins with
 */

/** @template T */
export class Table {
  /** @param {Design<T>} design */
  constructor(design) {
    this.design = design;
    this.query = "";
    /** @type {Set<string>} */
    this.states = new Set();
    this.order = design.columns.find((one) => one.id === design.order) ?? design.columns[0];
    this.isDescending = Boolean(this.order.isDescending);
    this.page = 0;
    /** @type {string[]} */
    this.held = [];
    /** Keys of the rows that are shown. @type {string[]} */
    this.visible = [];
    /** @type {T[]} */
    this.rows = [];
    /** @type {Map<string, HTMLElement>} */
    this.counts = new Map();
    // The roles are those of the elements; laid out as cards, where it is narrow, they would lose them.
    this.body = h("tbody", { role: "rowgroup" });
    /** @type {List<T>} */
    this.list = new List(this.body, design.key, () => this._row());
    this.heads = new Map(design.columns.map((column) => [column.id, this._head(column)]));
    this.select = this._orders();
    this.note = h("p", { class: "empty", hidden: true }, "");
    this.summary = h("span", { class: "summary", "aria-live": "off" });
    this.back = this._turn("Previous page", "‹", -1);
    this.forth = this._turn("Next page", "›", 1);
    this.pager = h("div", { class: "pager" }, this.summary, this.back, this.forth);
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...this.heads.values()));
    this.table = h("table", { class: "grid", role: "table", "aria-label": design.label }, head, this.body);
    this.node = h("div", { class: "table" }, this._toolbar(), this.table, this.note, this.pager);
  }

  _toolbar() {
    const { design } = this;
    const search = h("input", {
      type: "search",
      placeholder: "Filter by name (/)",
      "aria-label": `Filter ${design.label.toLowerCase()} by name`,
      oninput: () => {
        this.query = search.value;
        this._chosen();
      },
    });
    return h("div", { class: "toolbar", role: "search" }, search, design.states ? this._chips() : null, this.select);
  }

  /** The order as a choice, for where there is no room for heads. */
  _orders() {
    const sortable = this.design.columns.filter((one) => one.value);
    const select = h(
      "select",
      {
        "aria-label": "Order by",
        onchange: () => this._orderBy(/** @type {Column<T>} */ (sortable.find((one) => one.id === select.value))),
      },
      ...sortable.map((one) => h("option", { value: one.id }, `Order: ${one.label}`)),
    );
    select.value = this.order.id;
    return select;
  }

  _chips() {
    const chips = Object.entries(STATES).map(([state, { label }]) => {
      const number = h("span", { class: "number" }, "0");
      this.counts.set(state, number);
      const chip = h(
        "button",
        {
          type: "button",
          class: "chip",
          "data-state": state,
          "aria-pressed": "false",
          onclick: () => {
            if (!this.states.delete(state)) this.states.add(state);
            attribute(chip, "aria-pressed", String(this.states.has(state)));
            this._chosen();
          },
        },
        icon(state),
        h("span", {}, label),
        number,
      );
      return chip;
    });
    return h("div", { class: "chips", role: "group", "aria-label": "Filter by state" }, ...chips);
  }

  /** @param {Column<T>} column */
  _head(column) {
    const kind = [column.isNumber && "number", column.isWide && "wide", `c-${column.id}`].filter(Boolean).join(" ");
    if (!column.value) return h("th", { scope: "col", role: "columnheader", class: kind, title: column.hint }, column.label);
    const press = h("button", { type: "button", onclick: () => this._orderBy(column) }, column.label);
    return h("th", { scope: "col", role: "columnheader", class: kind, title: column.hint }, press);
  }

  /** @param {string} label @param {string} sign @param {number} step */
  _turn(label, sign, step) {
    const onclick = () => {
      this.page += step;
      this.held = [];
      this.update(this.rows);
    };
    return h("button", { type: "button", class: "button", "aria-label": label, onclick }, sign);
  }

  /** @param {Column<T>} column */
  _orderBy(column) {
    this.isDescending = column === this.order ? !this.isDescending : Boolean(column.isDescending);
    this.order = column;
    this.select.value = column.id;
    this._chosen();
  }

  _chosen() {
    this.page = 0;
    this.held = [];
    this.update(this.rows);
  }

  _row() {
    const updates = /** @type {((row: T) => void)[]} */ ([]);
    const node = h("tr", { role: "row" });
    for (const column of this.design.columns) {
      const kind = [column.isNumber && "number", column.isWide && "wide", `c-${column.id}`].filter(Boolean).join(" ");
      const td = h("td", { role: "cell", class: kind, "data-label": column.label });
      updates.push(column.cell(td));
      node.append(td);
    }
    return {
      node,
      /** @param {T} row */
      update(row) {
        for (const update of updates) update(row);
      },
    };
  }

  /** @param {T[]} rows all */
  update(rows) {
    this.rows = rows;
    const { key, states } = this.design;
    const found = this._page(rows);
    this.visible = found.rows.map(key);
    this.list.update(found.rows);
    if (states) this._count(rows, states);
    for (const column of this.design.columns) {
      const head = this.heads.get(column.id);
      const way = this.isDescending ? "descending" : "ascending";
      if (head) attribute(head, "aria-sort", column === this.order ? way : null);
    }
    const has = found.total > 0;
    this.note.hidden = has;
    text(this.note, rows.length ? "Nothing matches the filter." : this.design.empty);
    this._tell(found, rows.length);
  }

  /** @param {T[]} rows */
  _page(rows) {
    const { key, words, states } = this.design;
    const wanted = rows.filter(
      (row) =>
        (!this.query || matches(words(row), this.query)) &&
        (!this.states.size || !states || states(row).some((state) => this.states.has(state))),
    );
    const isHeld = this.body.matches(":hover") || this.body.contains(document.activeElement);
    const value = this.order.value ?? (() => null);
    const found = page(ordered(wanted, value, key, this.isDescending), this.page, PAGE_ROWS);
    this.page = found.number;
    if (isHeld && this.held.length) {
      const places = new Map(this.held.map((name, place) => [name, place]));
      const still = wanted.filter((row) => places.has(key(row)));
      if (still.length === this.held.length) {
        found.rows = still.sort((a, b) => (places.get(key(a)) ?? 0) - (places.get(key(b)) ?? 0));
        return found;
      }
    }
    this.held = found.rows.map(key);
    return found;
  }

  /** @param {T[]} rows @param {(row: T) => import("./states.js").Shown[]} states */
  _count(rows, states) {
    /** @type {Record<string, number>} */
    const sums = {};
    for (const row of rows) for (const state of new Set(states(row))) sums[state] = (sums[state] ?? 0) + 1;
    for (const [state, node] of this.counts) {
      text(node, count(sums[state] ?? 0));
      attribute(/** @type {Element} */ (node.parentElement), "data-none", !sums[state] && !this.states.has(state));
    }
  }

  /** @param {{first: number, rows: T[], total: number, number: number, pages: number}} found @param {number} all */
  _tell(found, all) {
    const { first, rows, total, number, pages } = found;
    const among = total < all ? ` (of ${count(all)})` : "";
    text(this.summary, total ? `${count(first + 1)}–${count(first + rows.length)} of ${count(total)}${among}` : "");
    this.back.hidden = pages < 2;
    this.forth.hidden = pages < 2;
    this.back.disabled = number === 0;
    this.forth.disabled = number === pages - 1;
  }
}
