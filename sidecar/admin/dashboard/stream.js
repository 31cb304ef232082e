/**
 * `/events`, read as it comes. Not by an EventSource, which can send no token and tells no status of a refusal.
 * @module
 */
import { Problem, authorization } from "./api.js";

const FIRST_PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 30_000;
/** The process says at least each 15 s that it is there. */
const SILENCE_MS = 40_000;

/** @typedef {{kind: string, data: string}} Told */

/** Text in pieces → events, as the standard for event streams has them. Pure, but for what it remembers. */
export class Parser {
  constructor() {
    /** Of the last event that was whole: what to go on after. */
    this.lastId = "";
    this._rest = "";
    this._start();
  }

  _start() {
    this._kind = "";
    this._id = this.lastId;
    /** @type {string[]} */
    this._data = [];
  }

  /**
   * The events that end in this piece.
   * @param {string} piece
   * @returns {Told[]}
   */
  push(piece) {
    const lines = (this._rest + piece).split("\n");
    this._rest = /** @type {string} */ (lines.pop());
    /** @type {Told[]} */
    const found = [];
    for (const line of lines) {
      if (line) this._take(line);
      else {
        this.lastId = this._id;
        if (this._data.length) found.push({ kind: this._kind || "message", data: this._data.join("\n") });
        this._start();
      }
    }
    return found;
  }

  /** @param {string} line */
  _take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a sign of life
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this._kind = value;
    else if (name === "data") this._data.push(value);
    else if (name === "id") this._id = value;
  }

  /** What was cut off in the middle comes again, after `lastId`. */
  cut() {
    this._rest = "";
    this._start();
  }
}

/**
 * Pause before the next try: longer after each one that failed, and never the same for all pages.
 * @param {number} failures in a row, from 1
 * @param {number} leastMs that the process asked for
 * @param {number} chance 0..1
 */
export function pauseAfter(failures, leastMs, chance) {
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1));
  return Math.max(leastMs, pause * (0.5 + chance / 2));
}

/**
 * Read one stream of events to its end.
 * @param {string} path
 * @param {(one: Told) => void} onEvent
 * @param {AbortSignal} signal
 * @throws {Problem} it was refused
 */
export async function follow(path, onEvent, signal) {
  const headers = { ...authorization(), Accept: "text/event-stream" };
  const response = await fetch(path, { headers, cache: "no-store", signal });
  if (!response.ok || !response.body) {
    const data = await response.json().catch(() => ({}));
    throw new Problem(response.status, String(data.detail ?? response.statusText));
  }
  const parser = new Parser();
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    for (const one of parser.push(decoder.decode(read.value, { stream: true }))) onEvent(one);
  }
}

/** Reads for as long as the page lives, and goes on where it was. */
export class EventStream {
  /** @param {(one: Told) => void} onEvent @param {(isOpen: boolean) => void} onChange */
  constructor(onEvent, onChange) {
    this.isOpen = false;
    this._onEvent = onEvent;
    this._onChange = onChange;
    this._parser = new Parser();
    this._failures = 0;
    this._leastMs = 0;
    this._isRunning = false;
    /** @type {() => void} */
    this._wake = () => {};
  }

  /** Begin, or try again at once instead of later. */
  hurry() {
    if (this._isRunning) this._wake();
    else void this._run();
  }

  async _run() {
    this._isRunning = true;
    for (;;) {
      this._leastMs = 0;
      try {
        await this._read();
      } catch {
        // Whatever broke it, the poll says what is wrong with the process.
      }
      this._parser.cut();
      this._tell(false);
      this._failures += 1;
      await this._pause(pauseAfter(this._failures, this._leastMs, Math.random()));
    }
  }

  async _read() {
    const abort = new AbortController();
    let watch = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const after = this._parser.lastId ? { "Last-Event-ID": this._parser.lastId } : {};
      const headers = { ...authorization(), ...after, Accept: "text/event-stream" };
      const response = await fetch("/events", { headers, cache: "no-store", signal: abort.signal });
      if (!response.ok || !response.body) {
        this._leastMs = Number(response.headers.get("retry-after") ?? 0) * 1000 || 0;
        return;
      }
      this._failures = 0;
      this._tell(true);
      const decoder = new TextDecoder();
      const reader = response.body.getReader();
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        clearTimeout(watch);
        watch = setTimeout(() => abort.abort(), SILENCE_MS);
        for (const one of this._parser.push(decoder.decode(read.value, { stream: true }))) this._onEvent(one);
      }
    } finally {
      clearTimeout(watch);
      abort.abort();
    }
  }

  /** @param {number} ms */
  _pause(ms) {
    return /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        this._wake = () => {
          clearTimeout(timer);
          resolve();
        };
      })
    );
  }

  /** @param {boolean} isOpen */
  _tell(isOpen) {
    if (this.isOpen === isOpen) return;
    this.isOpen = isOpen;
    this._onChange(isOpen);
  }
}
