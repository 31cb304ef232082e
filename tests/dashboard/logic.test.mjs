/** What the dashboard computes, without a browser. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The folder of the modules: a copy, where Node.js has to be told by a package.json that they are modules. */
const folder = process.env.DASHBOARD ?? fileURLToPath(new URL("../../sidecar/admin/dashboard", import.meta.url));
const at = (name) => import(pathToFileURL(`${folder}/${name}.js`));
const traffic = await at("traffic");
const format = await at("format");
const select = await at("select");
const timeline = await at("timeline");
const states = await at("states");
const needs = await at("needs");
const adaptive = await at("adaptive");
const stream = await at("stream");

const BOUNDS = [0.005, 0.01, 0.1, 1];
const sample = (seconds, finished, errors = 0, counts = [0, finished, 0, 0, 0], gone = 0) => ({ at: seconds, finished, errors, gone, counts });

test("a rate is a difference over its time, and a look without a sample is a rate of zero", () => {
  const history = [];
  for (const one of [sample(1, 10), sample(2, 30), sample(4, 36)]) traffic.remember(history, one);
  assert.deepEqual(traffic.rates([1, 2, 3, 4], history), [20, 0, 6]);
});

test("looks that are older than a minute get sparse, and none is older than ten minutes but the one before", () => {
  const ticks = Array.from({ length: 900 }, (_, i) => i);
  const kept = traffic.thinned(ticks);
  assert.deepEqual(kept.slice(-60), ticks.slice(-60));
  assert.ok(kept.length < 60 + 600 / 4.5 + 2);
  assert.ok(kept[0] >= 899 - 600 - 5);
  assert.deepEqual(traffic.thinned(kept), kept);
  assert.deepEqual(traffic.thinned([]), []);
});

test("a sum of histories has at each look what each of them had by then", () => {
  const one = [sample(1, 0), sample(2, 5, 1)];
  const other = [sample(3, 7, 0, [7, 0, 0, 0, 0], 2)];
  const sums = traffic.summed([1, 2, 3, 9], [one, other]);
  assert.deepEqual(sums.map(({ at, finished, errors, gone }) => [at, finished, errors, gone]), [
    [1, 0, 0, 0],
    [2, 5, 1, 0],
    [3, 12, 1, 2],
    [9, 12, 1, 2],
  ]);
  assert.deepEqual(sums[3].counts, [7, 5, 0, 0, 0]);
  assert.deepEqual(traffic.summed([1], []), [{ at: 1, finished: 0, errors: 0, gone: 0, counts: [] }]);
});

test("a stamp has date, time and zone", () => {
  assert.match(format.stamp(Date.UTC(2026, 10, 24, 18, 37, 17)), /^2026-11-2[45] \d\d:\d\d:17 (UTC|[+-]\d\d:\d\d)$/);
  assert.equal(format.stamp(NaN), format.NONE);
});

test("errors have rates of their own", () => {
  const history = [sample(1, 10, 1), sample(3, 30, 5)];
  assert.deepEqual(traffic.rates([1, 3], history, "errors"), [2]);
});

test("what has passed in a time is the difference to the counters as they stood then", () => {
  const history = [sample(0, 0), sample(10, 100), sample(50, 180, 8, undefined, 3)];
  assert.deepEqual(traffic.passed(history, 60, 30), {
    seconds: 30, finished: 80, errors: 8, gone: 3, counts: [0, 80, 0, 0, 0],
  });
});

test("clients that left are told beside the errors, and are none", () => {
  assert.equal(traffic.errorWords({ finished: 1200, errors: 3, gone: 0 }), `3 of ${format.count(1200)}`);
  assert.equal(traffic.errorWords({ finished: 12, errors: 3, gone: 1 }), "3 of 12, 1 client gone");
});

test("a page that was opened a moment ago tells the time that it really has", () => {
  assert.equal(traffic.passed([sample(100, 5)], 112, 30).seconds, 12);
  assert.equal(traffic.passed([sample(100, 5)], 100.2, 30), null);
  assert.equal(traffic.passed([], 100, 30), null);
});

test("counters that began anew are not compared with those before", () => {
  const history = [sample(1, 500)];
  traffic.remember(history, sample(2, 3));
  assert.deepEqual(history.map((one) => one.finished), [3]);
});

test("a history keeps the one sample that says how things stood at its beginning", () => {
  const history = [];
  for (let second = 0; second <= 300; second += 10) traffic.remember(history, sample(second, second), 120);
  assert.equal(history[0].at, 180);
  assert.equal(traffic.asOf(history, 185).at, 180);
  assert.equal(traffic.asOf(history, 179), null);
});

test("a quantile is on the straight line within its bucket", () => {
  assert.deepEqual(traffic.quantile([0, 0, 0, 100, 0], [1, 2, 3, 5], 0.5), { seconds: 4, sign: "" });
  assert.deepEqual(traffic.quantile([0, 50, 50, 0, 0], BOUNDS, 0.5), { seconds: 0.01, sign: "" });
});

test("of the first and of the open bucket a quantile tells the bound alone", () => {
  assert.deepEqual(traffic.quantile([9, 1, 0, 0, 0], BOUNDS, 0.5), { seconds: 0.005, sign: "<" });
  assert.deepEqual(traffic.quantile([1, 0, 0, 0, 9], BOUNDS, 0.99), { seconds: 1, sign: ">" });
  assert.equal(traffic.quantile([0, 0, 0, 0, 0], BOUNDS, 0.5), null);
});

test("a quantile needs at least one value beyond it, and ten in all", () => {
  assert.deepEqual([0.5, 0.9, 0.95, 0.99].map(traffic.needed), [10, 10, 20, 100]);
});

test("one error in a hundred is worth a look", () => {
  const seen = (finished, errors) => ({ seconds: 1, finished, errors, counts: [] });
  assert.deepEqual([seen(100, 1), seen(101, 1), seen(0, 0), null].map(traffic.isMany), [true, false, false, false]);
});

test("numbers read as people write them", () => {
  const told = [null, 0, 0.05, 1.25, 99.94, 12345.6].map(format.rate);
  assert.deepEqual(told, ["–", "0", "<0.1", "1.3", "99.9", "12 346"]);
  assert.deepEqual([null, 0, 0.0005, 0.05, 0.5, 1].map(format.percent), ["–", "0 %", "<0.1 %", "5.0 %", "50 %", "100 %"]);
  assert.deepEqual([null, 0.0025, 0.0421, 0.9996, 9.94, 12].map(format.latency), ["–", "2.5 ms", "42 ms", "1.00 s", "9.94 s", "12.0 s"]);
  assert.deepEqual([0, 59, 60, 185, 7440, 90000].map(format.duration), ["0 s", "59 s", "1 min", "3 min 5 s", "2 h 4 min", "1 d 1 h"]);
  assert.deepEqual([1234567, 1000, 999].map(format.count), ["1 234 567", "1 000", "999"]);
  assert.equal(format.clock("nonsense"), "–");
  assert.equal(format.plural(1, "problem"), "1 problem");
  assert.equal(format.plural(2, "problem"), "2 problems");
});

test("a search finds every word, in any case and order", () => {
  assert.ok(select.matches("Checkout-to-payments outbound", "PAY check"));
  assert.ok(!select.matches("checkout", "check out-of"));
  assert.ok(select.matches("anything", ""));
});

test("what is unknown comes last in either direction, and equals are in the order of their names", () => {
  const rows = [["r10", 1], ["r2", 1], ["none", null], ["top", 5]].map(([name, value]) => ({ name, value }));
  const names = (isDescending) => select.ordered(rows, (one) => one.value, (one) => one.name, isDescending).map((one) => one.name);
  assert.deepEqual(names(true), ["top", "r2", "r10", "none"]);
  assert.deepEqual(names(false), ["r2", "r10", "top", "none"]);
});

test("a page that is not there any more is the last one", () => {
  const rows = Array.from({ length: 120 }, (_, n) => n);
  assert.deepEqual(select.page(rows, 1, 50).rows.at(0), 50);
  assert.deepEqual(select.page(rows, 9, 50), { rows: rows.slice(100), number: 2, pages: 3, first: 100, total: 120 });
  assert.deepEqual(select.page([], 0, 50), { rows: [], number: 0, pages: 1, first: 0, total: 0 });
});

const change = (seconds, from, to, reason = "consecutive_failures") =>
  ({ at: new Date(seconds * 1000).toISOString(), from, to, reason, window: {} });

test("transitions become periods without gaps, cut at the beginning", () => {
  const history = [change(90, "half_open", "closed"), change(80, "open", "half_open"), change(50, "closed", "open")];
  assert.deepEqual(timeline.periods(history, "closed", 60_000, 100_000), [
    { state: "open", from: 60_000, to: 80_000 },
    { state: "half_open", from: 80_000, to: 90_000 },
    { state: "closed", from: 90_000, to: 100_000 },
  ]);
  assert.deepEqual(timeline.periods([], "closed", 0, 5), [{ state: "closed", from: 0, to: 5 }]);
});

test("an override in the past is told from a disabled breaker", () => {
  const history = [change(90, "disabled", "closed", "forced"), change(80, "closed", "disabled", "forced")];
  const found = timeline.periods(history, "closed", 0, 100_000).map((one) => one.state);
  assert.deepEqual(found, ["closed", "forced_closed", "closed"]);
});

test("what tripped a breaker is no operator and no probe", () => {
  const trip = change(50, "closed", "open", "failure_rate");
  const history = [change(70, "open", "forced_open", "forced"), change(60, "half_open", "open", "probe_failed"), trip];
  assert.equal(timeline.trip(history).reason, "probe_failed");
  assert.equal(timeline.trip([trip]), trip);
  assert.equal(timeline.trip([change(1, "closed", "forced_open", "forced")]), null);
});

test("what comes next is told of an override, a due probe, a ramp, a wait and a probe", () => {
  const plain = { state: "closed", is_overridden: false, override_until: null, is_probe_due: false, ramp_share: null, next_probe_at: null, probes_in_flight: 0 };
  const next = (more) => states.nextWords({ ...plain, ...more }, 100_000);
  const later = new Date(104_000).toISOString();
  assert.equal(next({}), "");
  assert.equal(next({ ramp_share: 0.346 }), "ramping 35 %");
  assert.equal(next({ state: "open", next_probe_at: later }), "probe in 4.0 s");
  assert.equal(next({ state: "open", next_probe_at: later, is_probe_due: true }), "probe due: the next call");
  assert.equal(next({ state: "half_open", probes_in_flight: 2 }), "2 probing");
  assert.equal(next({ state: "forced_open", is_overridden: true, override_until: later }), "ends in 4.0 s");
  assert.equal(next({ state: "forced_closed", is_overridden: true }), "until ended by hand");
});

test("a trace has an address only where there is a template of the web for it", () => {
  const template = "http://jaeger/trace/{trace_id}?a={trace_id}";
  assert.equal(timeline.traceAddress(template, "ab/c"), "http://jaeger/trace/ab%2Fc?a=ab%2Fc");
  for (const bad of [undefined, "", "javascript:alert(1)//{trace_id}"]) assert.equal(timeline.traceAddress(bad, "ab"), null);
  assert.equal(timeline.traceAddress(template, ""), null);
});

test("the worst state is the one that wants attention most", () => {
  assert.equal(states.worst(["closed", "half_open", "open"]), "open");
  assert.equal(states.worst([]), "closed");
  assert.equal(states.shown("disabled", true), "forced_closed");
  assert.equal(states.shown("something new"), "disabled");
});

test("the more routes have changed, the longer the pause before the next look", () => {
  assert.deepEqual([0, 125, 1000, 9000].map(needs.pauseMs), [1000, 1000, 8000, 10_000]);
});

test("whole histories are read for what is in sight and has changed, a few at a time", () => {
  const row = (name) => ({ row: { name, breakers: [{ upstream: "u" }] } });
  const names = Array.from({ length: 20 }, (_, n) => `r${n}`);
  const store = {
    view: { name: "breakers", route: "" },
    visible: { routes: names },
    routes: new Map(names.map((name) => [name, row(name)])),
    breakers: new Map(names.map((name, n) => [`${name}/u`, { generation: n % 2 }])),
    details: new Map([["r1", [{ upstream: "u", generation: 1 }]], ["r3", [{ upstream: "u", generation: 0 }]]]),
  };
  assert.deepEqual(needs.detailsNeeded(store), ["r3", "r5", "r7", "r9", "r11", "r13", "r15", "r17"]);
  assert.deepEqual(needs.detailsNeeded({ ...store, view: { name: "routes", route: "" } }), []);
  assert.deepEqual(needs.detailsNeeded({ ...store, view: { name: "route", route: "r4" } }), ["r4"]);
});

test("of upstreams, those in sight are read; of breakers, those whose upstream has an adaptive limit", () => {
  const row = (name, upstream) => [name, { row: { name, breakers: [{ upstream }] } }];
  const store = {
    view: { name: "breakers", route: "" },
    visible: { routes: ["a", "b", "c", "gone"], upstreams: ["u", "v"] },
    routes: new Map([row("a", "u"), row("b", "u"), row("c", "v"), row("far", "w")]),
    upstreams: new Map([["u", { adaptive: {} }], ["v", { adaptive: null }], ["w", { adaptive: {} }]]),
  };
  assert.deepEqual(needs.upstreamsNeeded(store), ["u"]);
  assert.deepEqual(needs.upstreamsNeeded({ ...store, view: { name: "upstreams", route: "" } }), ["u", "v"]);
  assert.deepEqual(needs.upstreamsNeeded({ ...store, view: { name: "routes", route: "" } }), []);
});

test("an adaptive limit is told with what is used of it, and why it was changed last", () => {
  const limit = { mode: "on", in_flight: 18, limit: 1032, changed: { at: "2026-11-29T00:00:00Z", reason: "in_line" } };
  const now = Date.parse("2026-11-29T00:03:05Z");
  const told = (more, reason = "in_line") => adaptive.limitWords({ ...limit, ...more, changed: { ...limit.changed, reason } }, now);
  assert.equal(told({}), "limit 18 / 1 032: answers waited in a line, 3 min 5 s ago");
  assert.equal(told({ mode: "observe" }, "start"), "limit 18 / 1 032 observed: not changed yet");
  assert.equal(told({}, "newer"), "limit 18 / 1 032: newer, 3 min 5 s ago");
  assert.equal(adaptive.limitWords(null, now), "");
});

const TOLD = "retry: 2000\nid: a-1\n\nid: a-2\nevent: reload\ndata: {\"x\":1}\n\n: still here\n\nevent: lost\ndata: {}\n\n";

test("a stream of events is the same in one piece and character by character", () => {
  const whole = new stream.Parser();
  const expected = [
    { kind: "reload", data: '{"x":1}' },
    { kind: "lost", data: "{}" },
  ];
  assert.deepEqual(whole.push(TOLD), expected);
  assert.equal(whole.lastId, "a-2");
  const parts = new stream.Parser();
  assert.deepEqual([...TOLD].flatMap((one) => parts.push(one)), expected);
  assert.equal(parts.lastId, "a-2");
});

test("an id without data is remembered, and one of an event that was cut is not", () => {
  const parser = new stream.Parser();
  assert.deepEqual(parser.push("id: a-1\n\nid: a-2\nevent: transition\ndata: {"), []);
  assert.equal(parser.lastId, "a-1");
  parser.cut();
  assert.deepEqual(parser.push("id: a-2\nevent: transition\ndata: {}\n\n"), [{ kind: "transition", data: "{}" }]);
  assert.equal(parser.lastId, "a-2");
});

test("each failure doubles the pause, up to half a minute, and never below what was asked for", () => {
  assert.deepEqual([1, 2, 3, 9].map((failures) => stream.pauseAfter(failures, 0, 1)), [2000, 4000, 8000, 30_000]);
  assert.equal(stream.pauseAfter(1, 0, 0), 1000);
  assert.equal(stream.pauseAfter(1, 15_000, 1), 15_000);
});
