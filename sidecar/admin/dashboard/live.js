/**
 * Keeps the store up to date: `/events` tells what happens, a slow poll reads the numbers. When nobody answers it
 * says so and goes on asking.
 * @module
 */
import { ask, chosen, part, Problem } from "./api.js";
import { FULL_EVERY, breakersNeeded, detailsNeeded, pauseMs, upstreamsNeeded } from "./needs.js";
import { store } from "./store.js";
import { EventStream } from "./stream.js";

const RETRY_MS = 2000;
/** For so many looks a page that is new does not say that it has no events. */
const PATIENT_LOOKS = 2;
/** What shows numbers of upstreams. */
const UPSTREAM_VIEWS = new Set(["breakers", "upstreams"]);
/** Breakers whose pasts are read at the start, for the feed. */
const PASTS = 10;

class Live {
  constructor() {
    this.cursor = "";
    this.looks = 0;
    this.needsAll = true;
    this.stream = new EventStream(
      (one) => this.heard(one.kind, JSON.parse(one.data)),
      () => this.soon(), // what happened in between may have no event
    );
    this.timer = 0;
    this.isAsking = false;
    this.isAgain = false;
    this.nextRoutes = 0;
  }

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.soon();
    });
    this.soon();
  }

  /** Look again at once. */
  soon() {
    this.nextRoutes = 0;
    if (this.isAsking) this.isAgain = true;
    else void this.look();
  }

  async look() {
    clearTimeout(this.timer);
    this.isAsking = true;
    this.isAgain = false;
    let pause = store.periodMs;
    try {
      await this.read();
      this.answered();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.failed(error);
      pause = RETRY_MS;
    } finally {
      this.isAsking = false;
      store.changed();
      if (this.isAgain) void this.look();
      else if (!document.hidden) this.timer = setTimeout(() => void this.look(), Math.min(pause, 1000));
    }
  }

  async read() {
    await this.readStatus();
    if (performance.now() >= this.nextRoutes) await this.readRoutes();
    store.changed();
    await Promise.all([this.readBreakers(), this.readUpstreams(), this.readConfig(), this.readWritten()]);
    await this.readDetails(detailsNeeded(store));
  }

  async readStatus() {
    const { data, date } = await ask("/status");
    const before = store.status;
    // In a container each process is number 1.
    if (before && (before.pid !== data.pid || before.uptime_seconds > data.uptime_seconds)) this.isAnother();
    if (date !== null && Math.abs(date + 500 - store.now()) > 2000) store.clockOffset = date + 500 - Date.now();
    if (data.is_draining && !before?.is_draining) {
      store.tell("note", store.now(), { text: before ? "the process drains: it ends soon" : "the process was draining when this page was opened" });
    }
    store.status = data;
  }

  /** A process that is not the one before answers. */
  isAnother() {
    store.forget();
    store.config = null;
    store.tell("note", store.now(), { text: "another process answers: counters begin anew" });
    this.cursor = "";
    this.needsAll = true;
  }

  async readRoutes() {
    if (!this.cursor) store.takeHistory((await ask("/history")).data);
    const { data } = await ask(this.cursor ? `/routes?since=${part(this.cursor)}` : "/routes");
    if (data.is_complete) this.needsAll = true;
    this.cursor = data.cursor;
    store.takeRoutes(data);
    store.periodMs = data.is_complete ? 1000 : pauseMs(data.routes.length);
    this.nextRoutes = performance.now() + store.periodMs - 100;
  }

  async readBreakers() {
    this.looks += 1;
    const isComplete = this.needsAll || this.looks % FULL_EVERY === 0;
    const names = breakersNeeded(store);
    if (!isComplete && !names.length) return;
    const { data } = await ask(isComplete ? "/breakers" : `/breakers?${chosen("route", names)}`);
    store.takeBreakers(data.breakers, isComplete);
    if (!isComplete) return;
    if (this.needsAll) await this.readPasts();
    this.needsAll = false;
  }

  /** Fill the feed with what happened before the page was opened. */
  async readPasts() {
    const restless = [...store.breakers.values()].filter((one) => one.generation > 0);
    restless.sort((a, b) => Date.parse(b.last_transition_at) - Date.parse(a.last_transition_at));
    const names = new Set(restless.slice(0, PASTS).map((one) => one.route));
    await this.readDetails([...names]);
    for (const name of names)
      for (const breaker of store.details.get(name) ?? [])
        for (const one of breaker.history.slice(0, 20)) store.tell("transition", Date.parse(one.at), one);
  }

  /** @param {string[]} names */
  async readDetails(names) {
    await Promise.all(
      names.map(async (name) => {
        try {
          const { data } = await ask(`/breakers/${part(name)}`);
          store.details.set(name, data.breakers);
          store.takeBreakers(data.breakers, false);
        } catch (error) {
          if (!(error instanceof Problem) || error.status !== 404) throw error;
          store.details.delete(name); // a reload has removed it
        }
      }),
    );
  }

  async readUpstreams() {
    if (!UPSTREAM_VIEWS.has(store.view.name)) return;
    const isComplete = !store.upstreams.size || this.looks % FULL_EVERY === 0;
    const names = upstreamsNeeded(store);
    if (!isComplete && !names.length) return;
    const query = isComplete ? "" : `?${chosen("name", names)}`;
    const { data } = await ask(`/upstreams${query}`);
    store.takeUpstreams(data.upstreams, isComplete);
  }

  /** The configuration but for its routes, when it is another or another reload has been tried. */
  async readConfig() {
    const { config } = /** @type {import("./store.js").Data} */ (store.status);
    const known = store.config;
    const keys = ["generation", "reloads_succeeded", "reloads_failed"];
    if (known && keys.every((key) => known[key] === config[key])) return;
    store.config = (await ask("/config?route=")).data;
    const last = store.config.last_reload;
    if (last) store.tell("reload", Date.parse(last.at), last);
    store.upstreams.clear();
    store.written.clear();
  }

  async readWritten() {
    const name = store.view.route;
    if (store.view.name !== "route" || store.written.has(name)) return;
    const { data } = await ask(`/config?${chosen("route", [name])}`);
    store.written.set(name, data.active.routes[0] ?? {});
  }

  answered() {
    store.lastAnswer = Date.now();
    store.trouble = "";
    store.needsToken = false;
    // Not each time: after a refusal it waits before it tries again.
    if (store.phase === "connecting" || store.phase === "lost") this.stream.hurry();
    if (this.stream.isOpen) store.phase = "live";
    else if (store.phase !== "connecting" || this.looks > PATIENT_LOOKS) store.phase = "polling";
  }

  /** @param {Problem} problem */
  failed(problem) {
    store.trouble = problem.message;
    store.needsToken = problem.status === 401;
    store.phase = "lost";
  }

  /** An event. @param {string} kind @param {import("./store.js").Data} data */
  heard(kind, data) {
    if (kind === "transition") store.takeTransition(data);
    else if (kind === "reload") store.tell("reload", Date.parse(data.at), data);
    else if (kind === "lost") this.needsAll = true; // some have no place in the ring any more
    if (kind !== "transition") this.soon();
    store.changed();
  }
}

export const live = new Live();
