/**
 * All that the page knows: one object with one owner. Whoever changes it says so, and it is drawn once a frame.
 * @module
 */
import { LINE_SECONDS } from "./timeline.js";
import { CHART_SECONDS, add, remember, summed, thinned } from "./traffic.js";

/**
 * @typedef {import("./traffic.js").Sample} Sample
 * @typedef {{[key: string]: any}} Data as the API tells it
 * @typedef {{row: Data, history: Sample[]}} RouteState
 * @typedef {"connecting" | "live" | "polling" | "lost"} Phase
 */

/** What the feed of activity holds at most. */
const FEED = 200;
const SHORTEST_SECONDS = 0.5;

export class Store {
  constructor() {
    /** @type {Phase} */
    this.phase = "connecting";
    /** Milliseconds since the epoch of the last answer. */
    this.lastAnswer = 0;
    /** What went wrong with the last question. */
    this.trouble = "";
    /** The process wants a token, and this page has none or a wrong one. */
    this.needsToken = false;
    /** Milliseconds that the process's clock is ahead of this machine's. */
    this.clockOffset = 0;
    /** Between two looks at the routes. */
    this.periodMs = 1000;
    /** @type {Data | null} */
    this.status = null;
    /** @type {Data | null} */
    this.config = null;
    /** @type {number[]} */
    this.bounds = [];
    /** @type {number[]} */
    this.ticks = [];
    /** @type {Map<string, RouteState>} */
    this.routes = new Map();
    /** Sums over the routes of each direction. @type {Record<"inbound" | "outbound", Sample[]>} */
    this.sums = { inbound: [], outbound: [] };
    /** What the process remembered of the routes when the page was opened. @type {Map<string, Sample[]>} */
    this.early = new Map();
    /** When it had looked last by then; null once that was taken. @type {number | null} */
    this.earlyAt = null;
    /** Rows of all breakers by `route/upstream`. @type {Map<string, Data>} */
    this.breakers = new Map();
    /** Everything of the breakers of a route. @type {Map<string, Data[]>} */
    this.details = new Map();
    /** @type {Map<string, Data>} */
    this.upstreams = new Map();
    /** A route's keys as the file would say them. @type {Map<string, Record<string, string>>} */
    this.written = new Map();
    /** Newest first. @type {{kind: "transition" | "reload" | "note", at: number, data: Data}[]} */
    this.feed = [];
    /** What is looked at; the rest of the address. */
    this.view = { name: "routes", route: "" };
    /** Ids of the rows that a table shows now, by what they are. @type {{routes: string[], upstreams: string[]}} */
    this.visible = { routes: [], upstreams: [] };
    /** @type {Set<() => void>} */
    this._watchers = new Set();
    this._isDue = false;
  }

  /** Milliseconds since the epoch, by the process's clock. */
  now() {
    return Date.now() + this.clockOffset;
  }

  /** How far back time lines go: to the start of the process, or what is bearable. */
  get lineSeconds() {
    return Math.min(LINE_SECONDS, Math.max(10, this.status?.uptime_seconds ?? 0));
  }

  /** Whose traffic is the headline: requests to the app, or its calls where there are no others. */
  get headline() {
    const rows = [...this.routes.values()];
    return rows.length && rows.every(({ row }) => row.direction === "outbound") ? "outbound" : "inbound";
  }

  /** What the whole width of a chart stands for. */
  get chartSeconds() {
    return Math.min(CHART_SECONDS, Math.max(30, this.at - (this.ticks[0] ?? 0)));
  }

  /** Counters' moment of the last look at the routes. */
  get at() {
    return this.ticks.at(-1) ?? 0;
  }

  /** @param {() => void} draw */
  watch(draw) {
    this._watchers.add(draw);
  }

  /** Have everything drawn with the next frame. */
  changed() {
    if (this._isDue) return;
    this._isDue = true;
    requestAnimationFrame(() => {
      this._isDue = false;
      for (const draw of this._watchers) draw();
    });
  }

  /** What came before the page was opened; comes before the first routes. @param {Data} answer of `/history` */
  takeHistory(answer) {
    this.ticks = thinned([...answer.looks_seconds]);
    this.earlyAt = answer.looks_seconds.at(-1);
    this.early = new Map(
      answer.routes.map((/** @type {Data} */ route) => [
        route.name,
        route.samples.map((/** @type {Data} */ one) => ({
          at: one.at_seconds,
          finished: one.finished,
          errors: one.errors,
          gone: one.gone,
          counts: one.duration_counts,
        })),
      ]),
    );
  }

  /** @param {Data} answer of `/routes` */
  takeRoutes(answer) {
    const at = answer.at_seconds;
    const isAnew = this.ticks.length > 0 && at < this.at;
    if (isAnew) this.forget();
    this.bounds = answer.duration_bounds;
    // A look right after another makes no point of a chart: a rate over so short a time is noise.
    if (this.ticks.length > 1 && at - this.at < SHORTEST_SECONDS) this.ticks.pop();
    this.ticks.push(at);
    this.ticks = thinned(this.ticks);
    const kept = answer.is_complete ? new Set() : null;
    for (const row of answer.routes) {
      kept?.add(row.name);
      this._takeRoute(row, at);
    }
    if (kept) for (const name of this.routes.keys()) if (!kept.has(name)) this.routes.delete(name);
    if (kept) this._sortRoutes(answer.routes);
    for (const direction of /** @type {const} */ (["inbound", "outbound"])) this._addUp(direction, at);
    this.early.clear();
    this.earlyAt = null;
  }

  /** @param {Data} row @param {number} at */
  _takeRoute(row, at) {
    let own = this.routes.get(row.name);
    if (!own) {
      own = { row, history: this._past(row) };
      this.routes.set(row.name, own);
    }
    own.row = row;
    remember(own.history, { at, finished: row.finished, errors: row.errors, gone: row.gone, counts: row.duration_counts });
    for (const one of row.breakers) {
      const known = this.breakers.get(`${row.name}/${one.upstream}`);
      if (known && known.state !== one.state) known.state = one.state;
    }
  }

  /** Of a route that the process had seen nothing of when it last looked, that it had counted nothing. @param {Data} row @returns {Sample[]} */
  _past(row) {
    const known = this.early.get(row.name);
    if (known || this.earlyAt === null) return known ?? [];
    return [{ at: this.earlyAt, finished: 0, errors: 0, gone: 0, counts: this.bounds.map(() => 0).concat(0) }];
  }

  /** In the order of the configuration. @param {Data[]} rows all */
  _sortRoutes(rows) {
    this.routes = new Map(rows.map((row) => [row.name, /** @type {RouteState} */ (this.routes.get(row.name))]));
  }

  /** The sum of what the routes of a direction did. @param {"inbound" | "outbound"} direction @param {number} at */
  _addUp(direction, at) {
    const own = [...this.routes.values()].filter(({ row }) => row.direction === direction);
    if (this.earlyAt !== null) this.sums[direction] = summed(this.ticks.slice(0, -1), own.map((one) => one.history));
    /** @type {Sample} */
    const sum = { at, finished: 0, errors: 0, gone: 0, counts: this.bounds.map(() => 0).concat(0) };
    for (const { row } of own) add(sum, { ...row, counts: row.duration_counts });
    remember(this.sums[direction], sum);
  }

  /** @param {Data[]} rows @param {boolean} isComplete */
  takeBreakers(rows, isComplete) {
    if (isComplete) this.breakers.clear();
    // A copy: events change it, and what was read whole has to stay as it was read.
    for (const row of rows) this.breakers.set(`${row.route}/${row.upstream}`, { ...row });
  }

  /** @param {Data[]} rows @param {boolean} isComplete */
  takeUpstreams(rows, isComplete) {
    if (isComplete) this.upstreams.clear();
    for (const row of rows) this.upstreams.set(row.name, row);
  }

  /** Note a transition in every place that shows the breaker. @param {Data} data of the event */
  takeTransition(data) {
    const row = this.breakers.get(`${data.route}/${data.upstream}`);
    if (row && data.sequence > row.generation) {
      row.state = data.to;
      row.generation = data.sequence;
      row.last_transition_at = data.at;
      row.is_overridden = data.override !== null && data.override.action !== "auto";
      row.override_by = row.is_overridden ? data.override.by : null;
      row.override_until = row.is_overridden ? data.override.until : null;
      // In full words with the next look at it.
      row.why = data.to === "closed" || !data.why ? "" : `${data.to}: ${data.why}`;
      row.is_probe_due = false;
      row.ramp_share = null;
    }
    const route = this.routes.get(data.route);
    const own = route?.row.breakers.find((/** @type {Data} */ one) => one.upstream === data.upstream);
    if (own) own.state = data.to;
    this.tell("transition", Date.parse(data.at), data);
  }

  /**
   * Add to the feed, unless it is there already.
   * @param {"transition" | "reload" | "note"} kind
   * @param {number} at
   * @param {Data} data
   */
  tell(kind, at, data) {
    const isKnown = this.feed.some(
      ({ kind: other, at: when, data: one }) =>
        other === kind &&
        (kind === "transition"
          ? one.sequence === data.sequence && one.route === data.route && one.upstream === data.upstream
          : kind === "reload" && when === at),
    );
    if (isKnown) return;
    const place = this.feed.findIndex((one) => one.at <= at);
    this.feed.splice(place < 0 ? this.feed.length : place, 0, { kind, at, data });
    this.feed.length = Math.min(this.feed.length, FEED);
  }

  /** Another process answers: nothing of the old one's numbers can be compared. */
  forget() {
    this.ticks = [];
    this.sums = { inbound: [], outbound: [] };
    this.early.clear();
    this.earlyAt = null;
    for (const map of [this.routes, this.breakers, this.details, this.upstreams, this.written]) map.clear();
  }
}

export const store = new Store();
