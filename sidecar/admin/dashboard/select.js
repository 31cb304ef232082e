/**
 * Which rows of a table are shown: filter, order, page. Pure.
 * @module
 */

/**
 * @template T
 * @typedef {{id: string, value: (row: T) => number | string | null, isDescending?: boolean}} Order
 */

/**
 * Every word must be somewhere in the text; case does not matter.
 * @param {string} text
 * @param {string} query
 */
export function matches(text, query) {
  const low = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => low.includes(word));
}

/**
 * A sorted copy. Unknown values come last in either direction; rows that are equal are in the order of their names.
 * @template T
 * @param {T[]} rows
 * @param {(row: T) => number | string | null} value
 * @param {(row: T) => string} name
 * @param {boolean} isDescending
 */
export function ordered(rows, value, name, isDescending) {
  const sign = isDescending ? -1 : 1;
  return rows
    .map((row) => ({ row, value: value(row), name: name(row) }))
    .sort((a, b) => {
      if (a.value !== b.value) {
        if (a.value == null) return 1;
        if (b.value == null) return -1;
        return a.value < b.value ? -sign : sign;
      }
      return byName(a.name, b.name);
    })
    .map((one) => one.row);
}

const collator = new Intl.Collator("en", { numeric: true });
/** @param {string} a @param {string} b */
export const byName = (a, b) => collator.compare(a, b);

/**
 * @template T
 * @param {T[]} rows
 * @param {number} wanted from 0; brought within bounds
 * @param {number} size
 */
export function page(rows, wanted, size) {
  const pages = Math.max(1, Math.ceil(rows.length / size));
  const number = Math.min(Math.max(0, wanted), pages - 1);
  const first = number * size;
  return { rows: rows.slice(first, first + size), number, pages, first, total: rows.length };
}
