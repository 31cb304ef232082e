"""Requests that abuse the connection: hop-by-hop fields, upgrades, expectations, pipelining (RFC 9112 9)."""

from __future__ import annotations

from tests.scenarios.corpus.outcomes import Cut, Forwarded, Refused, RequestCase, forwarded, refused
from tests.scenarios.corpus.requests_framing import HELLO, SMUGGLED, post
from tests.scenarios.corpus.requests_head import get

UPGRADE = (b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket")
BODY = Forwarded(method=b"POST", body=b"hello", framing="length", has=((b"content-length", b"5"),))
CHUNKS = Forwarded(method=b"POST", body=b"hello", framing="chunked")
GONE = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")


def listing(*names: bytes) -> bytes:
    return b"Connection: " + b", ".join(names)


HOP_BY_HOP: list[RequestCase] = [
    forwarded(
        "connection-lists-content-length",
        "RFC 9110 7.6.1: without its length the body would be the next request",
        post(listing(b"content-length"), b"Content-Length: 35", body=SMUGGLED),
        Forwarded(method=b"POST", body=SMUGGLED, framing="length", has=((b"content-length", b"35"),)),
    ),
    forwarded(
        "connection-lists-content-length-in-1.0",
        "the same, kept alive",
        post(listing(b"keep-alive", b"Content-Length"), b"Content-Length: 5", body=b"hello", version=b"1.0"),
        BODY,
    ),
    forwarded(
        "connection-lists-zero-content-length",
        "a POST without any length is refused by some (411)",
        post(listing(b"content-length"), b"Content-Length: 0"),
        Forwarded(method=b"POST", framing="length"),
    ),
    forwarded(
        "connection-lists-transfer-encoding",
        "the framing of the next hop is this hop's to write",
        post(listing(b"transfer-encoding"), b"Transfer-Encoding: chunked", body=HELLO),
        CHUNKS,
    ),
    forwarded(
        "connection-lists-host",
        "one Host goes on, whatever is listed",
        get(b"Host: a", listing(b"host", b"Host")),
        Forwarded(has=((b"host", b"a"),)),
    ),
    forwarded(
        "connection-lists-tracing",
        "they are written anew by this hop",
        get(b"Host: a", listing(b"traceparent", b"tracestate", b"x-request-id"), b"x-request-id: me"),
        Forwarded(has=((b"x-request-id", b"me"),)),
    ),
    forwarded(
        "connection-lists-ordinary-names",
        "RFC 9110 7.6.1: what is listed stops here",
        get(
            b"Host: a",
            listing(b"close-not", b"X-Secret", b" x-other "),
            b"X-Secret: 1",
            b"x-OTHER: 2",
            b"X: 3",
        ),
        Forwarded(has=((b"x", b"3"),), lacks=(b"x-secret", b"x-other", b"connection")),
    ),
    forwarded(
        "connection-in-several-fields",
        "RFC 9110 5.3: one list",
        get(b"Host: a", b"Connection: x-one", b"X-One: 1", b"Connection: x-two", b"X-Two: 2"),
        Forwarded(lacks=(b"x-one", b"x-two", b"connection")),
    ),
    forwarded(
        "connection-of-junk",
        "names that no field can bear",
        get(b"Host: a", b'Connection: ,,"host",;=, \xff,a b'),
        Forwarded(lacks=(b"connection",)),
    ),
    forwarded(
        "connection-close",
        "RFC 9112 9.6: the last request of this connection",
        get(b"Host: a", b"Connection: close"),
        Forwarded(closes=True, lacks=GONE),
    ),
    forwarded(
        "connection-close-in-a-list",
        "RFC 9112 9.3: close wins, in any case and place",
        get(b"Host: a", b"Connection: keep-alive, CLOSE"),
        Forwarded(closes=True, lacks=GONE),
    ),
    forwarded(
        "connection-close-in-a-second-field",
        "RFC 9110 5.3",
        get(b"Host: a", b"Connection: keep-alive", b"Connection: close"),
        Forwarded(closes=True, lacks=GONE),
    ),
    forwarded(
        "connection-close-with-body",
        "the body still belongs to it",
        post(b"Connection: close", b"Content-Length: 5", body=b"hello"),
        Forwarded(method=b"POST", body=b"hello", framing="length", closes=True),
    ),
    forwarded(
        "hop-by-hop-unlisted",
        "RFC 9110 7.6.1: they stop here without being listed",
        get(
            b"Host: a",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic eA==",
            b"TE: gzip",
        ),
        Forwarded(lacks=(*GONE, b"te", b"proxy-authorization")),
    ),
    forwarded(
        "te-trailers",
        "RFC 9110 10.1.4: made anew, with its Connection",
        get(b"Host: a", b"TE: trailers, gzip;q=0.5", b"Connection: te"),
        Forwarded(has=((b"te", b"trailers"), (b"connection", b"TE"))),
    ),
]

UPGRADES: list[RequestCase] = [
    forwarded(
        "upgrade-without-connection",
        "RFC 9110 7.8: not asked of this hop",
        get(b"Host: a", b"Upgrade: websocket"),
        Forwarded(lacks=GONE),
    ),
    forwarded(
        "upgrade-listed-without-field",
        "RFC 9110 7.8: nothing is asked for",
        get(b"Host: a", b"Connection: upgrade"),
        Forwarded(lacks=GONE),
    ),
    forwarded(
        "upgrade-in-http-1.0",
        "RFC 9110 7.8: must be ignored",
        get(*UPGRADE, version=b"1.0"),
        Forwarded(lacks=GONE, closes=True),
    ),
    forwarded(
        "upgrade-h2c",
        "RFC 9113 3.1: taken over by the upstream it would tunnel past every rule of this hop",
        get(
            b"Host: a",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        Forwarded(lacks=(*GONE, b"http2-settings")),
    ),
    forwarded(
        "upgrade-h2c-settings-unlisted",
        "the settings are hop-by-hop even if they are not listed",
        get(b"Host: a", b"Connection: Upgrade", b"Upgrade: H2C", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        Forwarded(lacks=(*GONE, b"http2-settings")),
    ),
    forwarded(
        "upgrade-h2c-in-a-list",
        "the upstream could choose it",
        get(b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"),
        Forwarded(lacks=GONE),
    ),
    forwarded(
        "upgrade-websocket-declined",
        "without a 101 it was an ordinary request, and what follows is one",
        get(*UPGRADE, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        Forwarded(has=((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))),
    ),
    *(
        forwarded(
            f"upgrade-{name}-with-{framing}",
            "RFC 9110 7.8: an upgrade may be ignored, a body never; its bytes are not the next request's",
            post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + name.encode(), field, body=body),
            Forwarded(method=b"POST", body=SMUGGLED, framing=framing, lacks=GONE),
        )
        for name in ("websocket", "h2c")
        for framing, field, body in (
            ("length", b"Content-Length: %d" % len(SMUGGLED), SMUGGLED),
            ("chunked", b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
        )
    ),
    forwarded(
        "upgrade-websocket-with-zero-length",
        "no body to wait for",
        post(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 0"),
        Forwarded(method=b"POST", framing="length", has=((b"upgrade", b"websocket"),)),
    ),
    forwarded(
        "upgrade-behind-another",
        "it is asked for in its turn; declined by the upstream, what follows is a request",
        get(b"Host: a") + get(*UPGRADE, target=b"/upgrade") + get(b"Host: a", target=b"/behind"),
        Forwarded(),
        Forwarded(b"/upgrade", has=((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))),
        Forwarded(b"/behind"),
    ),
    refused(
        "upgrade-and-both-framings",
        "RFC 9112 6.3 holds for it, too",
        post(*UPGRADE[1:], b"Content-Length: 5", b"Transfer-Encoding: chunked", body=HELLO),
    ),
]

EXPECT: list[RequestCase] = [
    forwarded(
        "expect-junk",
        "RFC 9110 10.1.1: the upstream's to judge (417)",
        post(b"Expect: the-unexpected", b"Content-Length: 5", body=b"hello"),
        BODY,
    ),
    forwarded(
        "expect-continue-without-waiting",
        "RFC 9110 10.1.1: a client may send its body at once",
        post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello"),
        BODY,
    ),
    forwarded(
        "expect-continue-without-body",
        "nothing to wait for",
        get(b"Host: a", b"Expect: 100-continue"),
        Forwarded(),
    ),
]

SECOND = get(b"Host: a", target=b"/next")
PIPELINES: list[RequestCase] = [
    RequestCase(
        "pipeline-good-then-bad",
        "the good one is answered, the bad one refused, and all behind it unread",
        get(b"Host: a") + get(b"Host: a", b"Host: b", target=b"/next"),
        (Forwarded(), Refused()),
    ),
    RequestCase(
        "pipeline-good-then-garbage",
        "the same",
        get(b"Host: a") + b"\x16\x03\x01" + SECOND,
        (Forwarded(), Refused()),
    ),
    RequestCase(
        "pipeline-body-then-bad",
        "what lies behind a body is a request of its own",
        post(b"Content-Length: 5", body=b"hello") + post(b"Content-Length: +5", body=b"hello"),
        (BODY, Refused()),
    ),
    RequestCase(
        "pipeline-body-too-long",
        "bytes behind the length begin the next request, whose end does not come",
        post(b"Content-Length: 5", body=b"hello!"),
        (BODY, Refused(408)),
        can_be_followed=False,
    ),
    RequestCase(
        "pipeline-body-too-long-and-more",
        "and with what follows, they are one: `!GET` is a method",
        post(b"Content-Length: 5", body=b"hello!") + SECOND,
        (BODY, Forwarded(b"/next", b"!GET")),
    ),
    RequestCase(
        "pipeline-body-too-long-by-no-token",
        "such bytes begin nothing",
        post(b"Content-Length: 5", body=b"hello\0") + SECOND,
        (BODY, Refused()),
    ),
    RequestCase(
        "pipeline-bad-behind-a-lone-cr",
        "RFC 9112 2.2: a lone CR is no empty line, also between requests",
        get(b"Host: a") + b"\r" + SECOND,
        (Forwarded(), Refused()),
    ),
    RequestCase(
        "pipeline-connect-between",
        "405, and nothing behind it is read",
        get(b"Host: a") + b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED,
        (Forwarded(), Refused(405)),
    ),
    RequestCase(
        "pipeline-behind-an-unknown-coding",
        "501, and the body behind it is never taken for a request",
        get(b"Host: a") + post(b"Transfer-Encoding: gzip, chunked", body=SMUGGLED),
        (Forwarded(), Refused(501)),
    ),
    RequestCase(
        "pipeline-good-then-bad-chunk",
        "the second one is cut, the first one answered",
        get(b"Host: a") + post(b"Transfer-Encoding: chunked", body=b"5\r\nhello!\r\n0\r\n\r\n"),
        (Forwarded(), Cut()),
    ),
    RequestCase(
        "pipeline-empty-lines-between",
        "RFC 9112 2.2: ignored",
        get(b"Host: a") + b"\r\n\r\n" + SECOND,
        (Forwarded(), Forwarded(b"/next")),
    ),
    RequestCase(
        "pipeline-chunks-then-more",
        "each request ends where its framing says",
        post(b"Transfer-Encoding: chunked", body=HELLO) + SECOND + post(b"Content-Length: 5", body=b"hello"),
        (CHUNKS, Forwarded(b"/next"), BODY),
    ),
    RequestCase(
        "pipeline-of-400",
        "all are answered, in order",
        b"".join(get(b"Host: a", target=b"/%d" % number) for number in range(400)),
        tuple(Forwarded(b"/%d" % number) for number in range(400)),
    ),
    RequestCase(
        "pipeline-behind-close",
        "RFC 9112 9.6: what follows the last request is not read",
        get(b"Host: a", b"Connection: close") + SMUGGLED,
        (Forwarded(closes=True),),
    ),
    RequestCase(
        "pipeline-behind-http-1.0",
        "the same",
        get(b"Host: a", version=b"1.0") + SMUGGLED,
        (Forwarded(closes=True),),
    ),
    RequestCase(
        "pipeline-head-then-get",
        "RFC 9110 9.3.2: a HEAD's answer ends with its head",
        b"HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND,
        (Forwarded(method=b"HEAD"), Forwarded(b"/next")),
    ),
]

CASES = HOP_BY_HOP + UPGRADES + EXPECT + PIPELINES
