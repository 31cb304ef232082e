/**
 * Questions to the process that this page came from.
 * @module
 */

const TIMEOUT_MS = 8000;
/** In this tab alone, until it is closed. */
const TOKEN_KEY = "sidecar-token";

/** An answer that is no success; `message` is what a person should read. */
export class Problem extends Error {
  /** @param {number} status 0 if there was no answer @param {string} message @param {string[]} lines */
  constructor(status, message, lines = []) {
    super(message);
    this.status = status;
    this.lines = lines;
  }
}

/** @param {string} token */
export const setToken = (token) => sessionStorage.setItem(TOKEN_KEY, token);

/** The field that carries the token, where there is one. @returns {Record<string, string>} */
export function authorization() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/**
 * @param {string} path
 * @param {"GET" | "POST"} [method]
 * @returns {Promise<{data: {[key: string]: any}, date: number | null}>} `date`: the process's clock, in milliseconds
 * @throws {Problem}
 */
export async function ask(path, method = "GET") {
  const headers = authorization();
  let response;
  let data;
  try {
    response = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    data = await response.json();
  } catch (error) {
    const isLate = error instanceof DOMException && error.name === "TimeoutError";
    throw new Problem(response?.status ?? 0, isLate ? `no answer within ${TIMEOUT_MS / 1000} s` : "no answer");
  }
  if (!response.ok) {
    const problems = Array.isArray(data.problems) ? data.problems.map(String) : [];
    throw new Problem(response.status, String(data.detail ?? response.statusText), problems);
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  return { data, date: Number.isNaN(date) ? null : date };
}

/** A name as a part of a path. @param {string} name */
export const part = (name) => encodeURIComponent(name);

/** Repeated keys of a query. @param {string} key @param {Iterable<string>} names */
export const chosen = (key, names) => [...names].map((name) => `${key}=${encodeURIComponent(name)}`).join("&");
