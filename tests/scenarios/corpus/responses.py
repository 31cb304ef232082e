"""What a hostile, broken or compromised upstream may say to one request (RFC 9112 4 to 7, RFC 9110 15)."""

from __future__ import annotations

from tests.scenarios.corpus.extensions import BAD_EXTENSIONS, GOOD_EXTENSIONS
from tests.scenarios.corpus.outcomes import (
    GET,
    Aborted,
    BadGateway,
    Relayed,
    ResponseCase,
    ResponseOutcome,
    Tunnelled,
)

HEAD = b"HEAD /first HTTP/1.1\r\nHost: a\r\n\r\n"
POST_UNFINISHED = b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel"
POST_ENDLESS = b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"
WEBSOCKET = b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
H2C = b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
HTTP10 = b"GET /first HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
SIZE = b"%d" % len(FORGED)
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
MAX_SIZE_LINE_BYTES = 4096
"""Of a chunk's size with its extensions."""
CLOSED = BadGateway(b"connection_terminated")
CUT_SHORT = BadGateway(b"http_response_incomplete")


def response(*lines: bytes, body: bytes = b"", status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (status, *lines)) + b"\r\n" + body


def length(
    value: bytes = b"5", body: bytes = b"hello", *lines: bytes, status: bytes = b"HTTP/1.1 200 OK"
) -> bytes:
    return response(b"Content-Length: " + value, *lines, body=body, status=status)


def chunked(body: bytes = CHUNKS, *lines: bytes) -> bytes:
    return response(b"Transfer-Encoding: chunked", *lines, body=body)


OK = length()


def bad(name: str, why: str, data: bytes, outcome: ResponseOutcome | None = None) -> ResponseCase:
    return ResponseCase(name, why, (data,), outcome or BadGateway())


def bad_late(name: str, why: str, data: bytes) -> ResponseCase:
    """Bad in its body: nothing was sent to the client yet if that comes in one read with the head."""
    return ResponseCase(name, why, (data,), BadGateway(), in_pieces=Aborted())


def good(
    name: str, why: str, data: bytes, outcome: Relayed | None = None, *, keeps: bool = True
) -> ResponseCase:
    return ResponseCase(name, why, (data,), outcome or Relayed(), keeps=keeps)


PAST_THE_END: list[ResponseCase] = [
    good("past-length", "RFC 9112 6.3: bytes past the end are nobody's answer", OK + b"x", keeps=False),
    good("past-length-a-response", "the next client must not get it", OK + FORGED, keeps=False),
    good("past-length-many", "nor any of them", OK + FORGED * 50, keeps=False),
    good("past-length-half-a-response", "nor a part of it", OK + FORGED[:20], keeps=False),
    good(
        "past-length-interim",
        "an interim response is one, too",
        OK + response(status=b"HTTP/1.1 100 C"),
        keeps=False,
    ),
    good("past-length-nul", "", OK + b"\0", keeps=False),
    good("past-chunks", "the same behind the last chunk", chunked() + b"x", keeps=False),
    good("past-chunks-a-response", "the same", chunked() + FORGED, keeps=False),
    good("past-chunks-more-chunks", "the same", chunked(CHUNKS + b"6\r\nforged\r\n0\r\n\r\n"), keeps=False),
    good("past-empty-body", "the same", length(b"0", FORGED), Relayed(body=b""), keeps=False),
    ResponseCase(
        "queued-on-idle",
        "an answer that nobody asked for waits for the next client",
        (OK, FORGED),
        Relayed(),
    ),
    ResponseCase("queued-on-idle-one-byte", "even a byte is too much", (OK, b"H"), Relayed()),
    ResponseCase("queued-on-idle-line-end", "even an empty line", (OK, b"\r\n"), Relayed()),
    ResponseCase(
        "queued-on-idle-408", "servers say so before they close", (OK, FORGED), Relayed(), then="close"
    ),
    ResponseCase(
        "closed-when-idle", "a pooled connection may end at any time", (OK,), Relayed(), then="close"
    ),
    ResponseCase("reset-when-idle", "or be reset", (OK,), Relayed(), then="reset"),
    good("line-end-in-front", "RFC 9112 2.2: read leniently, sent on strictly", b"\r\n" + OK),
    *(
        bad(f"{name}-in-front", "RFC 9112 2.2: an empty line is a CRLF and nothing else", front + OK)
        for name, front in (
            ("lone-cr", b"\r"),
            ("lone-lf", b"\n"),
            ("two-crs", b"\r\r"),
            ("cr-and-line-end", b"\r\r\n"),
            ("line-end-and-lf", b"\r\n\n"),
        )
    ),
]

BODYLESS: list[ResponseCase] = [
    ResponseCase(
        "head-with-body",
        "RFC 9110 9.3.2: a HEAD's answer has no body, whatever it says",
        (OK,),
        Relayed(body=b"", has=((b"content-length", b"5"),)),
        HEAD,
    ),
    ResponseCase("head-with-a-response", "the same", (length(SIZE, FORGED),), Relayed(body=b""), HEAD),
    ResponseCase("head-with-chunks", "the same", (chunked(),), Relayed(body=b""), HEAD),
    ResponseCase("head-with-late-body", "the same", (length(SIZE, b""), FORGED), Relayed(body=b""), HEAD),
    ResponseCase(
        "head-as-it-should",
        "fit for the next one",
        (length(SIZE, b""),),
        Relayed(body=b""),
        HEAD,
        keeps=True,
    ),
    ResponseCase(
        "head-chunked-without-body",
        "RFC 9112 6.1: allowed",
        (chunked(b""),),
        Relayed(body=b""),
        HEAD,
        keeps=True,
    ),
    *(
        good(f"{status}-with-{name}", "RFC 9112 6.3 (1)", data, Relayed(status, b""), keeps=False)
        for status, line in ((204, b"HTTP/1.1 204 No Content"), (304, b"HTTP/1.1 304 Not Modified"))
        for name, data in (
            ("body", length(status=line)),
            ("chunks", response(b"Transfer-Encoding: chunked", body=CHUNKS, status=line)),
            ("a-response", response(body=FORGED, status=line)),
        )
    ),
    good(
        "204-with-length",
        "RFC 9110 8.6: must not be there",
        length(b"5", b"", status=b"HTTP/1.1 204 No Content"),
        Relayed(204, b"", lacks=(b"content-length",)),
    ),
    good(
        "304-with-length",
        "RFC 9110 15.4.5: what a 200 would have had",
        length(b"5", b"", status=b"HTTP/1.1 304 Not Modified"),
        Relayed(304, b"", has=((b"content-length", b"5"),)),
    ),
    good(
        "304-with-length-zero-chunked",
        "RFC 9112 6.1: coding without a body goes no further",
        response(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 304 Not Modified"),
        Relayed(304, b"", lacks=(b"transfer-encoding",)),
    ),
    good(
        "205-with-body",
        "RFC 9110 15.3.6 forbids it, its framing is plain",
        length(status=b"HTTP/1.1 205 R"),
        Relayed(205),
    ),
]

LENGTHS: list[ResponseCase] = [
    bad(
        "two-lengths",
        "RFC 9112 6.3 (5): the next client's answer would start at the other one",
        response(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    ),
    bad(
        "two-equal-lengths",
        "refused, never repaired",
        response(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    ),
    bad("length-and-chunked", "RFC 9112 6.3 (3)", length(b"3", CHUNKS, b"Transfer-Encoding: chunked")),
    bad("chunked-and-length", "RFC 9112 6.3 (3)", chunked(CHUNKS, b"Content-Length: 3")),
    *(
        bad(f"length-{name}", "RFC 9112 6.2: 1*DIGIT and nothing else", length(value))
        for name, value in (
            ("negative", b"-5"),
            ("plus", b"+5"),
            ("hex", b"0x5"),
            ("list", b"5, 6"),
            ("list-of-equals", b"5, 5"),
            ("inner-space", b"5 5"),
            ("empty", b""),
            ("word", b"five"),
            ("fraction", b"5.0"),
            ("underscore", b"1_0"),
            ("nul", b"5\0"),
            ("not-ascii", "\u0665".encode()),
            ("wraps-to-5", b"18446744073709551621"),
            ("beyond-signed-64-bits", b"18446744073709551615"),
        )
    ),
    bad("length-folded", "RFC 9112 5.2", response(b"Content-Length:", b" 5", body=b"hello")),
    bad("length-space-before-colon", "RFC 9112 5.1", response(b"Content-Length : 5", body=b"hello")),
    good("length-space-around", "RFC 9112 5.1", length(b" \t5 "), Relayed(has=((b"content-length", b"5"),))),
    ResponseCase(
        "length-huge-then-closed",
        "a body cut short must look cut short",
        (length(b"999999999999999999"),),
        Aborted(),
        then="close",
    ),
    good(
        "connection-lists-content-length",
        "RFC 9110 7.6.1: without it the client would read on into the next answer",
        length(SIZE, FORGED, b"Connection: content-length"),
        Relayed(body=FORGED, has=((b"content-length", SIZE),), lacks=(b"connection",)),
    ),
    ResponseCase(
        "connection-lists-content-length-of-head",
        "the same",
        (length(b"5", b"", b"Connection: Content-Length, x-a", b"X-A: 1"),),
        Relayed(body=b"", lacks=(b"x-a",)),
        HEAD,
        keeps=True,
    ),
    good(
        "connection-lists-transfer-encoding",
        "the framing of the next hop is this hop's",
        chunked(CHUNKS, b"Connection: transfer-encoding, via"),
    ),
    good(
        "connection-of-junk",
        "names that no field can bear; close counts in any case and place",
        length(b"5", b"hello", b'Connection: ,;"x", CLOSE', b"Connection: x-b", b"X-B: 1"),
        Relayed(lacks=(b"connection", b"x-b")),
        keeps=False,
    ),
]

CODINGS: list[ResponseCase] = [
    *(
        bad(
            f"te-{name}",
            "RFC 9112 6.1: this hop knows chunked alone, once",
            response(b"Transfer-Encoding: " + value, body=CHUNKS),
        )
        for name, value in (
            ("gzip", b"gzip"),
            ("identity", b"identity"),
            ("gzip-chunked", b"gzip, chunked"),
            ("chunked-gzip", b"chunked, gzip"),
            ("chunked-chunked", b"chunked, chunked"),
            ("xchunked", b"xchunked"),
            ("parameter", b"chunked;q=1"),
            ("quoted", b'"chunked"'),
            ("vertical-tab", b"\x0bchunked"),
            ("empty", b""),
        )
    ),
    bad("te-twice", "RFC 9112 6.1", chunked(CHUNKS, b"Transfer-Encoding: chunked")),
    bad("te-identity-behind", "TE.TE", chunked(CHUNKS, b"Transfer-Encoding: identity")),
    bad(
        "te-in-http-1.0",
        "RFC 9112 6.1",
        response(b"Transfer-Encoding: chunked", body=CHUNKS, status=b"HTTP/1.0 200 OK"),
    ),
    good("te-in-other-case", "RFC 9112 7", response(b"TRANSFER-encoding: CHUNKED", body=CHUNKS)),
    good("te-space-around", "RFC 9112 5.1", response(b"Transfer-Encoding:  chunked ", body=CHUNKS)),
]

CHUNKED: list[ResponseCase] = [
    *(
        bad_late(f"chunk-{name}", "RFC 9112 7.1", chunked(body))
        for name, body in (
            ("size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
            ("size-negative", b"-5\r\nhello\r\n0\r\n\r\n"),
            ("size-space", b"5 \r\nhello\r\n0\r\n\r\n"),
            ("size-missing", b"\r\nhello\r\n0\r\n\r\n"),
            ("size-not-hex", b"hello\r\n0\r\n\r\n"),
            ("size-wraps-to-5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("size-bare-lf", b"5\nhello\r\n0\r\n\r\n"),
            ("size-nul", b"5\0\r\nhello\r\n0\r\n\r\n"),
            ("data-too-long", b"5\r\nhello!\r\n0\r\n\r\n"),
            ("data-without-crlf", b"5\r\nhello0\r\n\r\n"),
            ("data-bare-lf", b"5\r\nhello\n0\r\n\r\n"),
            ("bad-after-good", b"5\r\nhello\r\n" * 3 + b"zz\r\n"),
            ("end-bare-lf", b"5\r\nhello\r\n0\r\n\n"),
            ("trailer-without-colon", b"5\r\nhello\r\n0\r\nX y\r\n\r\n"),
            ("trailer-folded", b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
            ("trailer-bare-cr", b"5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n"),
            ("trailer-content-length", b"5\r\nhello\r\n0\r\nContent-Length: 46\r\n\r\n" + FORGED),
            ("trailer-transfer-encoding", b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS),
            ("trailers-without-end", b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 20_000),
        )
    ),
    *(
        ResponseCase(f"closed-{name}", "a body cut short must look cut short", (data,), Aborted(), then=then)
        for then in ("close", "reset")
        for name, data in (
            (f"in-a-length-by-{then}", length(b"50")),
            (f"in-a-chunk-by-{then}", chunked(b"50\r\nhello")),
            (f"between-chunks-by-{then}", chunked(b"5\r\nhello\r\n")),
            (f"in-the-last-chunk-by-{then}", chunked(b"5\r\nhello\r\n0\r\n")),
            (f"behind-the-head-by-{then}", length(b"5", b"")),
        )
    ),
    *(
        bad_late(f"{at}-{name}", "RFC 9112 7.1.1", chunked(body))
        for name, extension in BAD_EXTENSIONS
        for at, body in (
            ("chunk-ext", b"5%b\r\nhello\r\n0\r\n\r\n" % extension),
            ("last-chunk-ext", b"5\r\nhello\r\n0%b\r\n\r\n" % extension),
        )
    ),
    *(
        good(
            f"chunk-ext-{name}",
            "RFC 9112 7.1.1: ends at this hop",
            chunked(b"5%b\r\nhello\r\n0%b\r\n\r\n" % (extension, extension)),
        )
        for name, extension in GOOD_EXTENSIONS
    ),
    bad_late(
        "chunk-ext-without-end", "its end is not waited for", chunked(b"5;a=" + b"x" * MAX_SIZE_LINE_BYTES)
    ),
    good("chunk-leading-zeros", "RFC 9112 7.1", chunked(b"000000000000000000005\r\nhello\r\n000\r\n\r\n")),
    good(
        "chunk-trailer-connection-close",
        "late, but the next client must not be the one to find out",
        chunked(b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n"),
        keeps=False,
    ),
    good(
        "trailers-forbidden",
        "RFC 9110 6.5.1: what means something in a head never comes late",
        chunked(b"5\r\nhello\r\n0\r\nSet-Cookie: a=b\r\nTE: x\r\nUpgrade: x\r\nHost: y\r\nX-Sum: 1\r\n\r\n"),
        Relayed(trailers=((b"x-sum", b"1"),)),
    ),
    ResponseCase(
        "chunked-to-http-1.0",
        "RFC 9112 6.1: ends with the connection",
        (chunked(),),
        Relayed(closes=True),
        HTTP10,
        keeps=True,
    ),
    ResponseCase(
        "chunked-to-http-1.0-cut",
        "an end of the connection would look like an end of the body",
        (chunked(b"50\r\nhello"),),
        Aborted(),
        HTTP10,
        then="close",
    ),
]

HEADS: list[ResponseCase] = [
    *(
        bad(f"status-{name}", "RFC 9112 4", length(status=line))
        for name, line in (
            ("two-digits", b"HTTP/1.1 20 OK"),
            ("four-digits", b"HTTP/1.1 2000 OK"),
            ("below-100", b"HTTP/1.1 099 OK"),
            ("zero", b"HTTP/1.1 000 OK"),
            ("negative", b"HTTP/1.1 -20 OK"),
            ("word", b"HTTP/1.1 abc OK"),
            ("missing", b"HTTP/1.1 OK"),
            ("two-spaces", b"HTTP/1.1  200 OK"),
            ("tab", b"HTTP/1.1\t200 OK"),
            ("version-1.2", b"HTTP/1.2 200 OK"),
            ("version-0.9", b"HTTP/0.9 200 OK"),
            ("version-2.0", b"HTTP/2.0 200 OK"),
            ("version-2", b"HTTP/2 200"),
            ("version-1.10", b"HTTP/1.10 200 OK"),
            ("version-lower-case", b"http/1.1 200 OK"),
            ("version-missing", b"HTTP 200 OK"),
            ("icy", b"ICY 200 OK"),
            ("leading-space", b" HTTP/1.1 200 OK"),
            ("bare-lf", b"HTTP/1.1 200 OK\nX: y"),
            ("bare-cr", b"HTTP/1.1 200 OK\rX: y"),
            ("cr-in-reason", b"HTTP/1.1 200 O\rK"),
        )
    ),
    bad("status-of-http-0.9", "a body alone is no answer", b"<html>hello</html>\r\n"),
    bad("status-is-a-request", "RFC 9112 4", GET),
    bad("status-is-tls", "TLS where plain text was expected", b"\x15\x03\x01\x00\x02\x02\x46"),
    bad("status-is-http2", "RFC 9113 3.4", b"\0\0\x12\4\0\0\0\0\0" + bytes(18)),
    bad("status-is-nul", "", bytes(32)),
    good("status-without-reason", "RFC 9112 4", length(status=b"HTTP/1.1 200 ")),
    good("status-without-reason-or-space", "RFC 9112 4: read leniently", length(status=b"HTTP/1.1 200")),
    good("status-reason-with-nul", "the reason is this hop's own", length(status=b"HTTP/1.1 200 O\0K")),
    good("status-reason-obs-text", "the same", length(status=b"HTTP/1.1 200 \xff\xfe")),
    good(
        "status-unregistered",
        "RFC 9110 15: goes by its class",
        length(status=b"HTTP/1.1 299 Odd"),
        Relayed(299),
    ),
    good(
        "status-beyond-599",
        "RFC 9110 15: the client's to judge",
        length(status=b"HTTP/1.1 999 Odd"),
        Relayed(999),
    ),
    *(
        bad(f"field-{name}", "RFC 9112 5", response(line, b"Content-Length: 5", body=b"hello"))
        for name, line in (
            ("without-colon", b"X"),
            ("without-colon-spaced", b"X y"),
            ("space-before-colon", b"X : y"),
            ("name-empty", b": y"),
            ("name-with-space", b"X y: z"),
            ("name-with-nul", b"X\0: z"),
            ("name-with-cr", b"X\rY: z"),
            ("name-not-ascii", b"X\xff: z"),
            ("leading-space", b" X: y"),
            ("folded", b"X: y\r\n z"),
            ("folded-with-tab", b"X: y\r\n\tz"),
            ("value-with-nul", b"X: a\0b"),
            ("value-with-control", b"X: a\x0bb"),
            ("value-with-bare-cr", b"X: a\rb"),
            ("value-with-bare-lf", b"X: a\nb"),
            ("value-splits", b"X: a\rHTTP/1.1 200 OK\r\rforged"),
            ("two-cr", b"X: y\r"),
        )
    ),
    bad("head-ends-with-bare-lf", "RFC 9112 2.2", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello"),
    bad("head-of-bare-lf", "RFC 9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    good(
        "field-value-splits-if-unescaped",
        "escapes are text here, whatever the client does with them",
        length(b"5", b"hello", b"Location: /%0d%0aSet-Cookie:%20a=b"),
        Relayed(has=((b"location", b"/%0d%0aSet-Cookie:%20a=b"),)),
    ),
    good(
        "field-value-obs-text",
        "RFC 9110 5.5: opaque bytes",
        length(b"5", b"hello", b"X: \xff\xfe"),
        Relayed(has=((b"x", b"\xff\xfe"),)),
    ),
    good(
        "request-id-of-its-own",
        "SPEC 4: the client gets the one it knows",
        length(b"5", b"hello", b"X-Request-Id: forged", b"x-request-id: forged"),
    ),
    bad("head-huge", "it has a limit", response(b"X: " + b"y" * 300_000)),
    bad(
        "head-large",
        "the limit holds, however the head is cut into pieces",
        length(b"5", b"hello", b"X: " + b"y" * 100_000),
    ),
    bad("head-of-many-fields", "their number has one, too", response(*[b"X: y"] * 300)),
    bad("head-without-end", "it need not be complete for that", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000),
    bad("reason-without-end", "", b"HTTP/1.1 200 " + b"y" * 100_000),
    *(
        bad(f"endless-{name}", "no status line begins so: its end is not waited for", data)
        for name, data in (
            ("word", b"x" * 100_000),
            ("spaces", b" " * 100_000),
            ("lines", b"x\n" * 50_000),
            ("protocol", b"HTTP" * 25_000),
        )
    ),
    *(
        bad(f"endless-{name}", "the head's limit holds for its first line", data)
        for name, data in (
            ("version", b"HTTP/1." + b"1" * 100_000),
            ("status", b"HTTP/1.1 " + b"2" * 100_000),
        )
    ),
    ResponseCase("closed-before-any", "SPEC 4", (b"",), CLOSED, then="close"),
    ResponseCase("reset-before-any", "SPEC 4", (b"",), CLOSED, then="reset"),
    ResponseCase("closed-in-the-status-line", "SPEC 4", (b"HTTP/1.1 20",), CUT_SHORT, then="close"),
    ResponseCase(
        "closed-in-the-head", "SPEC 4", (b"HTTP/1.1 200 OK\r\nContent-Le",), CUT_SHORT, then="close"
    ),
    ResponseCase(
        "closed-behind-an-interim",
        "SPEC 4",
        (response(status=b"HTTP/1.1 103 E"),),
        BadGateway(b"http_response_incomplete", interims=(103,)),
        then="close",
    ),
]

INTERIM = response(b"Link: </a>", status=b"HTTP/1.1 103 Early Hints")
SWITCH = response(b"Connection: Upgrade", b"Upgrade: websocket", status=b"HTTP/1.1 101 Switching Protocols")

INTERIMS: list[ResponseCase] = [
    bad("101-unasked", "RFC 9110 15.2.2", SWITCH + b"\x81\x05hello"),
    bad("101-unasked-then-a-response", "nothing behind it may be read", SWITCH + OK),
    bad("101-unasked-without-fields", "the same", response(status=b"HTTP/1.1 101 S") + OK),
    ResponseCase(
        "101-to-h2c",
        "declined by this hop: the upstream never saw the wish",
        (SWITCH + OK,),
        BadGateway(),
        H2C,
    ),
    ResponseCase(
        "101-without-upgrade",
        "RFC 9110 15.2.2: it must say to what",
        (response(status=b"HTTP/1.1 101 S") + OK,),
        BadGateway(),
        WEBSOCKET,
    ),
    ResponseCase(
        "101-without-connection",
        "RFC 9110 7.8",
        (response(b"Upgrade: websocket", status=b"HTTP/1.1 101 S") + OK,),
        BadGateway(),
        WEBSOCKET,
    ),
    ResponseCase(
        "101-to-something-else",
        "RFC 9110 7.8: only to a protocol that was asked for",
        (response(b"Connection: Upgrade", b"Upgrade: h2c", status=b"HTTP/1.1 101 S") + OK,),
        BadGateway(),
        WEBSOCKET,
    ),
    ResponseCase(
        "101-with-length",
        "RFC 9110 8.6: no length, so no body; what follows is the tunnel's",
        (
            response(
                b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5", status=b"HTTP/1.1 101 S"
            )
            + FORGED,
        ),
        BadGateway(),
        WEBSOCKET,
    ),
    ResponseCase(
        "101-with-chunks",
        "RFC 9112 6.1: no coding in a 1xx",
        (
            response(
                b"Connection: Upgrade",
                b"Upgrade: websocket",
                b"Transfer-Encoding: chunked",
                status=b"HTTP/1.1 101 S",
            )
            + CHUNKS,
        ),
        BadGateway(),
        WEBSOCKET,
    ),
    ResponseCase(
        "101-asked",
        "RFC 9110 7.8: from here on the bytes are the client's to judge",
        (SWITCH + FORGED,),
        Tunnelled(FORGED),
        WEBSOCKET,
        then="close",
    ),
    good(
        "100-unasked",
        "RFC 9110 15.2: passed on",
        response(status=b"HTTP/1.1 100 C") + OK,
        Relayed(interims=(100,)),
    ),
    good("1xx-several", "RFC 9110 15.2", INTERIM * 3 + OK, Relayed(interims=(103,) * 3)),
    good("1xx-unknown", "RFC 9110 15.2", response(status=b"HTTP/1.1 199 X") + OK, Relayed(interims=(199,))),
    good(
        "1xx-with-hop-by-hop",
        "RFC 9110 7.6.1 holds for them, too",
        response(b"Connection: x-a", b"X-A: 1", b"Keep-Alive: 5", b"Upgrade: x", status=b"HTTP/1.1 103 E")
        + OK,
        Relayed(interims=(103,)),
        keeps=True,
    ),
    good(
        "1xx-with-zero-length",
        "RFC 9110 8.6: must not be there, so it goes no further",
        length(b"0", b"", status=b"HTTP/1.1 103 E") + OK,
        Relayed(interims=(103,)),
    ),
    good(
        "1xx-fields-stay-theirs",
        "an interim response's fields are not the final one's",
        response(b"X-Interim: 1", status=b"HTTP/1.1 103 E") + OK,
        Relayed(interims=(103,), lacks=(b"x-interim",)),
    ),
    bad("1xx-with-length", "RFC 9110 8.6", length(status=b"HTTP/1.1 103 E") + OK),
    bad(
        "1xx-with-chunks",
        "RFC 9112 6.1",
        response(b"Transfer-Encoding: chunked", body=CHUNKS, status=b"HTTP/1.1 103 E") + OK,
    ),
    *(
        bad(
            f"{status}-with-{name}",
            "RFC 9110 15.2: a 1xx ends with its head, so that this is a malformed answer",
            response(*lines, body=body, status=b"HTTP/1.1 %d X" % status) + OK,
            BadGateway(interims=interims),
        )
        for status in (100, 103, 199)
        for name, lines, body, interims in (
            ("length", (b"Content-Length: 5",), b"hello", ()),
            ("length-of-an-answer", (b"Content-Length: " + SIZE,), FORGED, ()),
            ("chunks", (b"Transfer-Encoding: chunked",), CHUNKS, ()),
            ("unknown-coding", (b"Transfer-Encoding: gzip",), b"hello", ()),
            ("body", (), b"hello\r\n\r\n", (status,)),
            ("chunks-unsaid", (), CHUNKS, (status,)),
        )
    ),
    bad("1xx-flood", "they have a limit", INTERIM * 1000 + OK, BadGateway(interims=(103,) * 32)),
    bad(
        "1xx-flood-of-bytes",
        "and so have their heads",
        response(b"X: " + b"y" * 5000, status=b"HTTP/1.1 103 E") * 30 + OK,
        BadGateway(interims=None),
    ),
    ResponseCase(
        "1xx-to-http-1.0",
        "RFC 9110 15.2: not to a 1.0 client",
        (INTERIM + OK,),
        Relayed(),
        HTTP10,
        keeps=True,
    ),
    ResponseCase(
        "1xx-to-head",
        "RFC 9110 9.3.2",
        (INTERIM + length(b"5", b""),),
        Relayed(body=b"", interims=(103,)),
        HEAD,
        keeps=True,
    ),
]

OUT_OF_TURN: list[ResponseCase] = [
    ResponseCase(
        "before-the-request",
        "HTTP/1.1 cannot tell it from an answer; the honest one behind it is nobody's",
        (FORGED,),
        Relayed(body=b"forged"),
        when="accept",
    ),
    ResponseCase(
        "before-the-request-one-byte",
        "the answer behind it makes no sense any more",
        (b"H",),
        BadGateway(),
        when="accept",
    ),
    ResponseCase("closed-on-accept", "SPEC 4", (b"",), CLOSED, when="accept", then="close"),
    ResponseCase("reset-on-accept", "SPEC 4", (b"",), CLOSED, when="accept", then="reset"),
    ResponseCase(
        "early-to-a-length",
        "RFC 9112 9.3: the rest of the body is nobody's request",
        (OK,),
        Relayed(),
        POST_UNFINISHED,
        when="head",
    ),
    ResponseCase(
        "early-to-chunks",
        "the same, with an end that nobody knows",
        (OK,),
        Relayed(closes=True),
        POST_ENDLESS,
        when="head",
    ),
    ResponseCase(
        "early-and-closed",
        "RFC 9112 9.6",
        (length(b"5", b"hello", b"Connection: close"),),
        Relayed(),
        POST_UNFINISHED,
        when="head",
        then="close",
    ),
    ResponseCase(
        "early-and-two", "the second one is nobody's", (OK + FORGED,), Relayed(), POST_UNFINISHED, when="head"
    ),
    ResponseCase(
        "early-and-bad", "SPEC 4", (b"nonsense\r\n\r\n",), BadGateway(), POST_UNFINISHED, when="head"
    ),
    ResponseCase(
        "early-and-bad-to-chunks",
        "SPEC 4",
        (b"nonsense\r\n\r\n",),
        BadGateway(closes=True),
        POST_ENDLESS,
        when="head",
    ),
]

UNFRAMED: list[ResponseCase] = [
    ResponseCase(
        "until-close",
        "RFC 9112 6.3 (8): all that comes is body, also what looks like an answer",
        (response(body=b"hello") + FORGED,),
        Relayed(body=b"hello" + FORGED),
        then="close",
    ),
    ResponseCase(
        "until-close-in-1.0",
        "the same",
        (response(b"Connection: keep-alive", body=b"hello", status=b"HTTP/1.0 200 OK"),),
        Relayed(),
        then="close",
    ),
    ResponseCase("until-reset", "a reset is no end", (response(body=b"hello"),), Aborted(), then="reset"),
    good(
        "http-1.0-with-length",
        "not kept: it did not say so in 1.1",
        length(status=b"HTTP/1.0 200 OK"),
        keeps=False,
    ),
    *(
        good(
            f"keep-alive-{name}",
            "RFC 9110 7.6.1: it ends at this hop; what it says of the time is only ever heeded as a limit",
            length(b"5", b"hello", *(b"Keep-Alive: " + value for value in values)),
            keeps=keeps,
        )
        for name, values, keeps in (
            ("timeout", (b"timeout=60, max=100",), True),
            ("timeout-in-other-case", (b"TIMEOUT = 60",), True),
            ("timeout-of-0", (b"timeout=0",), False),
            ("timeout-of-00", (b"timeout=00",), False),
            ("timeout-quoted", (b'timeout="0"',), False),
            ("timeout-huge", (b"timeout=" + b"9" * 400,), True),
            ("timeout-negative", (b"timeout=-1",), True),
            ("timeout-no-number", (b"timeout=x",), True),
            ("timeout-not-ascii", (b"timeout=\xb2",), True),
            ("timeout-empty", (b"timeout=",), True),
            ("junk", (b',,;=,"',), True),
            ("empty", (b"",), True),
            ("two-lines", (b"timeout=60", b"timeout=0"), False),
            ("two-timeouts", (b"max=5, timeout=0",), False),
        )
    ),
    good(
        "keep-alive-of-0-with-chunks",
        "the same, however the answer is framed",
        chunked(CHUNKS, b"Keep-Alive: timeout=0"),
        keeps=False,
    ),
    good(
        "keep-alive-beside-close",
        "RFC 9112 9.6: close wins",
        length(b"5", b"hello", b"Keep-Alive: timeout=60", b"Connection: close"),
        keeps=False,
    ),
    good(
        "close-but-stays",
        "RFC 9112 9.6: not used again",
        length(b"5", b"hello", b"Connection: close"),
        keeps=False,
    ),
]

CASES = PAST_THE_END + BODYLESS + LENGTHS + CODINGS + CHUNKED + HEADS + INTERIMS + OUT_OF_TURN + UNFRAMED
