/**
 * What to ask besides the routes, so that what is looked at is fresh and nothing else costs anything. Pure.
 * @module
 */

/** Everything is read again after so many looks, in case an event was missed. */
export const FULL_EVERY = 60;
/** Whole histories at a time. */
const DETAILS_AT_ONCE = 8;

/**
 * Routes whose breakers' histories are to be read.
 * @param {import("./store.js").Store} store
 * @returns {string[]}
 */
export function detailsNeeded(store) {
  if (store.view.name === "route") return [store.view.route];
  if (store.view.name !== "breakers") return [];
  return store.visible.routes.filter((name) => isStale(store, name)).slice(0, DETAILS_AT_ONCE);
}

/** @param {import("./store.js").Store} store @param {string} name */
function isStale(store, name) {
  const route = store.routes.get(name);
  if (!route) return false;
  const known = new Map((store.details.get(name) ?? []).map((one) => [one.upstream, one.generation]));
  return route.row.breakers.some((/** @type {{upstream: string}} */ { upstream }) => {
    const generation = store.breakers.get(`${name}/${upstream}`)?.generation ?? 0;
    return generation > 0 && known.get(upstream) !== generation;
  });
}

/**
 * Routes whose rows of breakers are shown with their numbers.
 * @param {import("./store.js").Store} store
 * @returns {string[]}
 */
export const breakersNeeded = (store) => (store.view.name === "breakers" ? [...new Set(store.visible.routes)] : []);

/**
 * Upstreams that are shown with their numbers: of breakers, those that have an adaptive limit.
 * @param {import("./store.js").Store} store
 * @returns {string[]}
 */
export function upstreamsNeeded(store) {
  if (store.view.name === "upstreams") return store.visible.upstreams;
  if (store.view.name !== "breakers") return [];
  const shown = new Set(store.visible.routes.flatMap((name) => store.routes.get(name)?.row.breakers ?? []).map(({ upstream }) => upstream));
  return [...shown].filter((name) => store.upstreams.get(name)?.adaptive);
}

/**
 * Pause until the next look at the routes: a row costs the process 40 µs, which is to stay at half a percent of its time.
 * @param {number} rows in the last answer
 */
export const pauseMs = (rows) => Math.min(10_000, Math.max(1000, rows * 8));
