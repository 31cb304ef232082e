"""The worst heads that fit the limits: for each field that somebody reads, what makes its reader work most.

`heads()` is what the bench sends and what the tests count by; `FILE` is a configuration that looks at all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

HEAD_BYTES = 60_000
"""Of the field that is long, within the 64 KiB of a head."""
TARGET_BYTES = 16_000
"""Within the 16 KiB of a target."""

HEADER = """\
version: 1
listeners:
  mesh: {address: "127.0.0.1:0", direction: inbound}
  street: {address: "127.0.0.1:0", direction: inbound, trust: none}
probes: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
telemetry: {access_log: {format: "off"}}
"""


def _routes(listener: str) -> Iterator[str]:
    for number in range(50):
        yield (
            f"- name: {listener}-regex-{number}\n  listener: {listener}\n  upstream: app\n"
            f"  match: {{path: {{regex: '/v{number}x[0-9]+/.*'}}, query: {{beta: '{number}'}}}}\n"
        )
    for number in range(20):
        yield (
            f"- name: {listener}-asks-{number}\n  listener: {listener}\n  upstream: app\n"
            f"  match: {{query: {{a{number}: '1', b: {{regex: '[^a]*a{{{number + 1}}}'}}}}}}\n"
        )
        yield (
            f"- name: {listener}-field-{number}\n  listener: {listener}\n  upstream: app\n"
            f"  match: {{headers: {{x-a: {{regex: '(a|b)*a(a|b){{{number + 1}}}'}}}}}}\n"
        )
    yield (
        f"- name: {listener}-prefix\n  listener: {listener}\n  upstream: app\n"
        "  match: {hosts: ['*.a.b.c.d.test'], path: {prefix: /}}\n  rewrite: {prefix: /new}\n"
    )
    yield f"- name: {listener}-rest\n  listener: {listener}\n  upstream: app\n  deadline: {{inject_baggage: true}}\n"


FILE = (
    'upstreams: {app: {endpoints: ["127.0.0.1:9"]}}\nroutes:\n'
    + "".join(_routes("mesh"))
    + "".join(_routes("street"))
)


def _head(*fields: bytes, target: bytes = b"/", method: bytes = b"GET") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (method, target, lines)


def filled(piece: bytes, size: int = HEAD_BYTES) -> bytes:
    """`piece` again and again, as often as it fits."""
    return piece * (size // len(piece))


def numbered(pattern: bytes, size: int = HEAD_BYTES) -> bytes:
    """The same, but each one has a number of its own in it."""
    return b"".join(pattern % number for number in range(size // (len(pattern) + 3)))


def noise(letters: bytes, size: int = HEAD_BYTES) -> bytes:
    """Letters in an order that no expression foresees, the same each time.

    With a letter behind them that none allows, each expression reads them all.
    """
    rng = random.Random(7)
    return bytes(rng.choices(letters, k=size))


TRACEPARENT = b"traceparent: 00-%032x-%016x-01" % (7, 7)


def lists() -> dict[bytes, tuple[bytes, ...]]:
    """Values by the field that has them: lists, numbers and texts that make a reader look at every byte."""
    comma = (filled(b"a,"), filled(b","), filled(b" ,"), numbered(b"a%d,"), b"," + b" " * HEAD_BYTES + b"x")
    semicolon = (filled(b"a=b;"), filled(b";"), numbered(b"a%d=b;"))
    digits = (filled(b"1"), filled(b"1,"), filled(b"0"), filled(b"-1,"))
    return {
        b"Connection": comma,
        b"Keep-Alive": (*comma, *semicolon),
        b"TE": (*comma, filled(b"trailers,"), filled(b"a;q=0.5,")),
        b"Upgrade": comma,
        b"Via": (*comma, filled(b"1.1 sidecar,"), filled(b"1.1 a (x),")),
        b"Forwarded": (*comma, *semicolon, filled(b"for=a,"), filled(b'for="'), b'for="' + filled(b"\\a")),
        b"X-Forwarded-For": (*comma, filled(b"10.0.0.1, ")),
        b"X-Forwarded-Proto": comma,
        b"X-Forwarded-Host": comma,
        b"Cookie": (*semicolon, filled(b"a=b; "), filled(b"=")),
        b"Accept-Encoding": (*comma, filled(b"gzip;q=0.1,")),
        b"Baggage": (
            *comma,
            *semicolon,
            filled(b"deadline-ms=1,"),
            filled(b"deadline-ms = x ,"),
            b",deadline-ms" + b" " * HEAD_BYTES,
            b",deadline-ms=" + filled(b", "),
        ),
        b"Proxy-Status": (*comma, filled(b"a; error=b,")),
        b"Retry-After": digits,
        b"grpc-timeout": (*digits, filled(b"1S,"), *comma),
        b"x-request-timeout-ms": (*digits, *comma),
        b"x-envoy-expected-rq-timeout-ms": (*digits, *comma),
        b"l5d-timeout": (*digits, *comma, filled(b"1h"), filled(b"1.5ms,")),
        b"x-request-id": (filled(b"a"), filled(b"\xff")),
        b"x-a": (filled(b"a"), filled(b"ab"), filled(b"\xff"), noise(b"ab") + b"c"),
        b"Host": (filled(b"a."), filled(b"1."), b"[" + filled(b"0:") + b"]", filled(b"a")),
        b"Content-Type": comma,
        b"Expect": comma,
    }


def heads() -> dict[str, bytes]:
    """All of them, by a name for people."""
    found = {"a plain head of that size": _head(b"x-plain: " + filled(b"a"))}
    for name, values in lists().items():
        for value in values:
            line = name + b": " + value
            head = _head(line)
            if name == b"Host":
                head = b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n"
            elif name == b"Upgrade":
                head = _head(line, b"Connection: upgrade")
            found[f"{name.decode()}: {value[:12].decode('latin-1')}…"] = head
    found |= _about_traces() | _about_targets() | _about_framing() | _about_counts()
    return found


def _about_traces() -> dict[str, bytes]:
    values = (filled(b"a=b,"), numbered(b"a%d=b,"), filled(b","), b"a=" + filled(b" ") + b"x")
    found = {
        f"tracestate: {value[:12].decode()}…": _head(TRACEPARENT, b"tracestate: " + value) for value in values
    }
    for value in (filled(b"0"), filled(b"00-"), b"01-%032x-%016x-01-" % (7, 7) + filled(b"a"), filled(b"\t")):
        found[f"traceparent: {value[:12].decode()}…"] = _head(b"traceparent: " + value)
    return found


def _about_targets() -> dict[str, bytes]:
    pieces = (b"%41", b"%2f", b"%25", b"/a", b"/..", b"/%2e%2e", b"//", b"/;a", b";", b"\\", b"a", b"/v1x1/")
    found = {}
    for piece in pieces:
        found[f"path {piece.decode()}…"] = _head(target=b"/" + filled(piece, TARGET_BYTES))
    longest = b"/" + filled(b"%41", TARGET_BYTES - 1)
    found["path %41…, host with a rewritten prefix"] = _head(target=longest).replace(
        b"Host: x", b"Host: x.a.b.c.d.test"
    )
    for piece in (b"%41&", b"&", b"a=1&", b"%41=%41&", b"+&", b"a;", b"a[]&", b"a0=1&b=aa&", b"b=a&", b"a"):
        target = b"/v1x1/a?b=" + filled(piece, TARGET_BYTES)
        found[f"query {piece.decode()}…"] = _head(target=target)
    found["query 4,000 names"] = _head(target=b"/?" + numbered(b"a%d&", TARGET_BYTES))
    return found


def _about_framing() -> dict[str, bytes]:
    found = {}
    for value in (filled(b"gzip,"), filled(b","), filled(b"chunked,"), filled(b"a;b=c,")):
        head = _head(b"Transfer-Encoding: " + value, method=b"POST")
        found[f"Transfer-Encoding: {value[:12].decode()}…"] = head
    for value in (filled(b"0"), filled(b"1"), filled(b"1,")):
        head = _head(b"Content-Length: " + value, method=b"POST")
        found[f"Content-Length: {value[:12].decode()}…"] = head
    chunked = _head(b"Transfer-Encoding: chunked", method=b"POST")
    found["chunk extensions"] = chunked + filled(b"1" + b";a=b" * 900 + b"\r\nx\r\n", 64_000) + b"0\r\n\r\n"
    found["quoted chunk extension"] = chunked + b'1;a="' + filled(b"\\a", 4000) + b'"\r\nx\r\n0\r\n\r\n'
    found["trailers"] = chunked + b"0\r\n" + filled(b"a: b\r\n", 700) + b"\r\n"
    found["one long trailer"] = chunked + b"0\r\na: " + filled(b"a,") + b"\r\n\r\n"
    return found


def _about_counts() -> dict[str, bytes]:
    found = {}
    for method in (b"OPTIONS", b"TRACE"):
        for value in (filled(b"1,"), filled(b"0"), filled(b"9")):
            head = _head(b"Max-Forwards: " + value, method=method)
            found[f"{method.decode()}, Max-Forwards: {value[:8].decode()}…"] = head
    long_name = filled(b"sessio-au-", HEAD_BYTES)
    found["TRACE, a long name, Max-Forwards: 0"] = _head(
        b"Max-Forwards: 0", long_name + b": a", method=b"TRACE"
    )
    found["TRACE, 120 names, Max-Forwards: 0"] = _head(
        b"Max-Forwards: 0", *(b"%b%d: a" % (filled(b"tok-", 480), n) for n in range(120)), method=b"TRACE"
    )
    found["120 fields of one name"] = _head(*[b"x-a: " + b"a" * 480] * 120)
    found["120 fields of Connection"] = _head(*[b"Connection: " + filled(b"a,", 480)] * 120)
    found["120 fields of Cookie"] = _head(*[b"Cookie: " + filled(b"a=b;", 480)] * 120)
    found["120 fields with _"] = _head(*(b"x_%d: %b" % (n, b"a" * 480) for n in range(120)))
    found["120 fields of traceparent"] = _head(*[TRACEPARENT] * 120)
    found["120 fields of tracestate"] = _head(TRACEPARENT, *[b"tracestate: " + b"a=b," * 60] * 120)
    found["all at once"] = _head(
        b"Connection: " + filled(b"a,", 15_000), b"Baggage: " + filled(b"a=b,", 15_000),
        b"X-Forwarded-For: " + filled(b"1,", 15_000), b"Cookie: " + filled(b"a;", 10_000), TRACEPARENT,
        target=b"/v1x1/?" + filled(b"%41&", 5000),
    )  # fmt: skip
    return found
