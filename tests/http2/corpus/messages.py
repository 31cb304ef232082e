"""Requests, answers, trailers and their fields (RFC 9113 8, RFC 8441)."""

from __future__ import annotations

from tests.http2.corpus.case import CLIENT, SERVER, Case, Resets, Takes
from tests.http2.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    POST,
    PROTOCOL_ERROR,
    REQUEST,
    answer,
    block,
    frame,
    headers,
    request,
)

MALFORMED = Resets(1, PROTOCOL_ERROR)
GOOD = Takes(("RequestReceived",))
METHOD, SCHEME, PATH, AUTHORITY = REQUEST
BODY = frame(DATA, 0, 1, b"body")
LAST = frame(DATA, END_STREAM, 1, b"body")
CONNECT = (":method", "CONNECT")
PROTOCOL = (":protocol", "websocket")
OPEN = END_HEADERS


def sent(*fields: tuple[str, str]) -> bytes:
    return headers(1, block(*fields))


def answered(*fields: tuple[str, str], is_end: bool = True) -> bytes:
    return headers(1, block(*fields), END_HEADERS | (END_STREAM if is_end else 0))


def trailers(*fields: tuple[str, str], flags: int = END_STREAM | END_HEADERS) -> bytes:
    return headers(1, block(*fields), flags)


NAMES = [
    Case("8.2.1 a name in upper case", request(1, ("X-Test", "a")), MALFORMED),
    Case("8.2.1 a name with a space", request(1, ("x test", "a")), MALFORMED),
    Case("8.2.1 an empty name", request(1, ("", "a")), MALFORMED),
    Case("8.2.1 a name with a colon", request(1, ("x:test", "a")), MALFORMED),
    Case("8.2.1 a name with NUL", request(1, ("x\0", "a")), MALFORMED),
    Case("8.2.1 a name above ASCII", request(1, ("x\xe9", "a")), MALFORMED),
    Case("8.2.1 a value with CR", request(1, ("x", "a\rb")), MALFORMED),
    Case("8.2.1 a value with LF", request(1, ("x", "a\nb: c")), MALFORMED),
    Case("8.2.1 a value with NUL", request(1, ("x", "a\0")), MALFORMED),
    Case("8.2.1 a value that begins with a space", request(1, ("x", " a")), MALFORMED),
    Case("8.2.1 a value that ends with a tab", request(1, ("x", "a\t")), MALFORMED),
    Case("8.2.1 an empty value", request(1, ("x", "")), GOOD),
    Case("8.2.1 a value above ASCII", request(1, ("x", "\xe9")), GOOD),
    Case("8.2.1 an answer's value with CR", answer(1, ("x", "a\rb")), MALFORMED, CLIENT),
    Case("8.2.1 an answer's name in upper case", answer(1, ("Server", "a")), MALFORMED, CLIENT),
]

CONNECTION_FIELDS = [
    *(
        Case(f"8.2.2 {name}", request(1, (name, value)), MALFORMED)
        for name, value in (
            ("connection", "keep-alive"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        )
    ),
    *(
        Case(f"8.2.2 an answer's {name}", answer(1, (name, value)), MALFORMED, CLIENT)
        for name, value in (("connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c"))
    ),
    Case("8.2.2 te: trailers", request(1, ("te", "trailers")), GOOD),
    Case("8.2.2 te: gzip", request(1, ("te", "gzip")), MALFORMED),
    Case("8.2.2 te: trailers and more", request(1, ("te", "trailers, deflate;q=0.5")), MALFORMED),
    Case("8.2.2 te twice", request(1, ("te", "trailers"), ("te", "gzip")), MALFORMED),
]

PSEUDO_FIELDS = [
    Case("8.3 an unknown pseudo-field", sent(*REQUEST, (":test", "a")), MALFORMED),
    Case("8.3 an answer's pseudo-field in a request", sent(*REQUEST, (":status", "200")), MALFORMED),
    Case("8.3 a pseudo-field behind others", sent(METHOD, SCHEME, ("x", "a"), PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 an empty :path", sent(METHOD, SCHEME, (":path", ""), AUTHORITY), MALFORMED),
    Case("8.3.1 no :method", sent(SCHEME, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 no :scheme", sent(METHOD, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 no :path", sent(METHOD, SCHEME, AUTHORITY), MALFORMED),
    Case("8.3.1 no :authority and no host", sent(METHOD, SCHEME, PATH), MALFORMED),
    Case("8.3.1 host instead of :authority", sent(METHOD, SCHEME, PATH, ("host", "a.test")), GOOD),
    Case("8.3.1 host as :authority", request(1, ("host", "a.test")), GOOD),
    Case("8.3.1 host in another case, with the usual port", request(1, ("host", "A.test:80")), GOOD),
    Case("8.3.1 host that differs", request(1, ("host", "b.test")), MALFORMED),
    Case("8.3.1 host with another port", request(1, ("host", "a.test:81")), MALFORMED),
    Case("8.3.1 host twice", request(1, ("host", "a.test"), ("host", "a.test")), MALFORMED),
    Case("8.3.1 :method twice", sent(METHOD, METHOD, SCHEME, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 :scheme twice", sent(METHOD, SCHEME, SCHEME, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 :path twice", sent(METHOD, SCHEME, PATH, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 :authority twice", sent(*REQUEST, AUTHORITY), MALFORMED),
    Case(
        "8.3.1 a user's name in :authority",
        sent(METHOD, SCHEME, PATH, (":authority", "me@a.test")),
        MALFORMED,
    ),
    Case("8.3.1 an empty :authority", sent(METHOD, SCHEME, PATH, (":authority", "")), MALFORMED),
    Case("8.3.1 a space in :authority", sent(METHOD, SCHEME, PATH, (":authority", "a .test")), MALFORMED),
    Case("8.3.1 a space in :path", sent(METHOD, SCHEME, (":path", "/ HTTP/1.1"), AUTHORITY), MALFORMED),
    Case("8.3.1 CRLF in :path", sent(METHOD, SCHEME, (":path", "/\r\nx: y"), AUTHORITY), MALFORMED),
    Case("8.3.1 :path without a slash", sent(METHOD, SCHEME, (":path", "a"), AUTHORITY), MALFORMED),
    Case("8.3.1 OPTIONS *", sent((":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY), GOOD),
    Case("8.3.1 GET *", sent(METHOD, SCHEME, (":path", "*"), AUTHORITY), MALFORMED),
    Case("8.3.1 a space in :method", sent((":method", "GET /"), SCHEME, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 an empty :method", sent((":method", ""), SCHEME, PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 a method of one's own", sent((":method", "PURGE"), SCHEME, PATH, AUTHORITY), GOOD),
    Case("8.3.1 LF in :scheme", sent(METHOD, (":scheme", "http\n"), PATH, AUTHORITY), MALFORMED),
    Case("8.3.1 another scheme", sent(METHOD, (":scheme", "coap+tcp"), PATH, AUTHORITY), GOOD),
    Case("8.3.2 no :status", answered(("x", "a")), MALFORMED, CLIENT),
    Case("8.3.2 :status behind others", answered(("x", "a"), (":status", "200")), MALFORMED, CLIENT),
    Case("8.3.2 :status twice", answered((":status", "200"), (":status", "200")), MALFORMED, CLIENT),
    Case("8.3.2 :status of two digits", answered((":status", "20")), MALFORMED, CLIENT),
    Case("8.3.2 :status of four", answered((":status", "2000")), MALFORMED, CLIENT),
    Case("8.3.2 :status below 100", answered((":status", "099")), MALFORMED, CLIENT),
    Case("8.3.2 :status that is no number", answered((":status", "2x0")), MALFORMED, CLIENT),
    Case(
        "8.3.2 a request's pseudo-field in an answer",
        answered((":status", "200"), (":path", "/")),
        MALFORMED,
        CLIENT,
    ),
    Case("8.3.2 an empty head", answered(), MALFORMED, CLIENT),
]

BODIES = [
    Case(
        "8.1.1 content-length as DATA",
        request(1, ("content-length", "4"), is_end=False) + LAST,
        Takes(("RequestReceived", "DataReceived")),
    ),
    Case(
        "8.1.1 content-length as several DATA",
        request(1, ("content-length", "8"), is_end=False) + BODY + LAST,
        Takes(("RequestReceived", "DataReceived", "DataReceived")),
    ),
    Case("8.1.1 too little DATA", request(1, ("content-length", "9"), is_end=False) + LAST, MALFORMED),
    Case("8.1.1 too much DATA", request(1, ("content-length", "3"), is_end=False) + BODY, MALFORMED),
    Case(
        "8.1.1 too much in several",
        request(1, ("content-length", "7"), is_end=False) + BODY + LAST,
        MALFORMED,
    ),
    Case("8.1.1 content-length without DATA", request(1, ("content-length", "1")), MALFORMED),
    Case("8.1.1 content-length of 0 without DATA", request(1, ("content-length", "0")), GOOD),
    Case(
        "8.1.1 too little DATA before trailers",
        request(1, ("content-length", "9"), is_end=False) + BODY + trailers(("x", "a")),
        MALFORMED,
    ),
    Case(
        "8.1.1 content-length that is no number",
        request(1, ("content-length", "4a"), is_end=False),
        MALFORMED,
    ),
    Case("8.1.1 content-length with a sign", request(1, ("content-length", "+4"), is_end=False), MALFORMED),
    Case(
        "8.1.1 content-length twice",
        request(1, ("content-length", "4"), ("content-length", "4"), is_end=False),
        MALFORMED,
    ),
    Case(
        "8.1.1 an answer's DATA is too long",
        answer(1, ("content-length", "3"), is_end=False) + BODY,
        MALFORMED,
        CLIENT,
    ),
    Case(
        "8.1.1 an answer's DATA is too short",
        answer(1, ("content-length", "5"), is_end=False) + LAST,
        MALFORMED,
        CLIENT,
    ),
    Case(
        "8.1.1 an answer's content-length without DATA", answer(1, ("content-length", "5")), MALFORMED, CLIENT
    ),
    Case(
        "8.1 304 with a content-length",
        answered((":status", "304"), ("content-length", "5")),
        Takes(("ResponseReceived",)),
        CLIENT,
    ),
    Case("8.1 304 with DATA", answered((":status", "304"), is_end=False) + BODY, MALFORMED, CLIENT),
    Case("8.1 204 with DATA", answered((":status", "204"), is_end=False) + BODY, MALFORMED, CLIENT),
    Case(
        "8.1 204 with a content-length",
        answered((":status", "204"), ("content-length", "5")),
        MALFORMED,
        CLIENT,
    ),
    Case(
        "8.1 204 that an empty DATA ends",
        answered((":status", "204"), is_end=False) + frame(DATA, END_STREAM, 1),
        Takes(("ResponseReceived", "DataReceived")),
        CLIENT,
    ),
]

TRAILERS = [
    Case(
        "8.1 trailers",
        request(1, is_end=False) + BODY + trailers(("x", "a")),
        Takes(("RequestReceived", "DataReceived", "TrailersReceived")),
    ),
    Case(
        "8.1 trailers without DATA",
        request(1, is_end=False) + trailers(("x", "a")),
        Takes(("RequestReceived", "TrailersReceived")),
    ),
    Case(
        "8.1 HEADERS in the middle of a body",
        request(1, is_end=False) + trailers(("x", "a"), flags=OPEN),
        MALFORMED,
    ),
    Case(
        "8.1 a pseudo-field in trailers", request(1, is_end=False) + trailers((":method", "GET")), MALFORMED
    ),
    Case("8.1 a second request on a stream", request(1, is_end=False) + request(1), MALFORMED),
    Case(
        "8.2.2 connection in trailers",
        request(1, is_end=False) + trailers(("connection", "close")),
        MALFORMED,
    ),
    Case("8.2.1 LF in trailers", request(1, is_end=False) + trailers(("x", "a\nb")), MALFORMED),
    Case(
        "8.1 an answer's trailers",
        answer(is_end=False) + BODY + trailers(("grpc-status", "0")),
        Takes(("ResponseReceived", "DataReceived", "TrailersReceived")),
        CLIENT,
    ),
    Case(
        "8.1 an answer that is trailers alone",
        answer(1, ("grpc-status", "13")),
        Takes(("ResponseReceived",)),
        CLIENT,
    ),
    Case("8.1 :status in trailers", answer(is_end=False) + trailers((":status", "200")), MALFORMED, CLIENT),
    Case("8.1 a second final head", answer(is_end=False) + answer(is_end=False), MALFORMED, CLIENT),
]

INTERIM = [
    Case(
        "8.1 100 and an answer",
        answered((":status", "100"), is_end=False) + answer(),
        Takes(("InterimReceived", "ResponseReceived")),
        CLIENT,
    ),
    Case(
        "8.1 several",
        answered((":status", "103"), ("link", "</a>"), is_end=False) * 3 + answer(),
        Takes(("InterimReceived",) * 3 + ("ResponseReceived",)),
        CLIENT,
    ),
    Case("8.1 100 that ends the stream", answered((":status", "100")), MALFORMED, CLIENT),
    Case(
        "8.1 100 with a content-length",
        answered((":status", "100"), ("content-length", "1"), is_end=False),
        MALFORMED,
        CLIENT,
    ),
    Case("8.6 101", answered((":status", "101"), is_end=False), MALFORMED, CLIENT),
    Case("8.1 DATA behind 100", answered((":status", "100"), is_end=False) + BODY, MALFORMED, CLIENT),
]

TUNNELS = [
    Case("8.5 CONNECT", headers(1, block(CONNECT, (":authority", "a.test:443")), OPEN), GOOD),
    Case("8.5 CONNECT with :path", headers(1, block(CONNECT, AUTHORITY, PATH), OPEN), MALFORMED),
    Case("8.5 CONNECT with :scheme", headers(1, block(CONNECT, AUTHORITY, SCHEME), OPEN), MALFORMED),
    Case("8.5 CONNECT without :authority", headers(1, block(CONNECT), OPEN), MALFORMED),
    Case(
        "8441 4 extended CONNECT", headers(1, block(CONNECT, PROTOCOL, SCHEME, PATH, AUTHORITY), OPEN), GOOD
    ),
    Case("8441 4 without :path", headers(1, block(CONNECT, PROTOCOL, SCHEME, AUTHORITY), OPEN), MALFORMED),
    Case("8441 4 without :scheme", headers(1, block(CONNECT, PROTOCOL, PATH, AUTHORITY), OPEN), MALFORMED),
    Case("8441 4 :protocol with GET", sent(*REQUEST, PROTOCOL), MALFORMED),
    Case(
        "8441 4 an empty :protocol",
        headers(1, block(CONNECT, (":protocol", ""), SCHEME, PATH, AUTHORITY), OPEN),
        MALFORMED,
    ),
    Case(
        "8441 4 :protocol twice",
        headers(1, block(CONNECT, PROTOCOL, PROTOCOL, SCHEME, PATH, AUTHORITY), OPEN),
        MALFORMED,
    ),
]

METHODS = [
    Case("8 GET", sent(*REQUEST), GOOD, SERVER),
    Case("8 HEAD", sent((":method", "HEAD"), SCHEME, PATH, AUTHORITY), GOOD, SERVER),
    Case("8 POST", headers(1, block(*POST), OPEN) + LAST, Takes(("RequestReceived", "DataReceived"))),
    Case("8 the order of pseudo-fields is free", sent(AUTHORITY, PATH, METHOD, SCHEME), GOOD),
]

CASES = [*NAMES, *CONNECTION_FIELDS, *PSEUDO_FIELDS, *BODIES, *TRAILERS, *INTERIM, *TUNNELS, *METHODS]
