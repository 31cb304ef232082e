"""Requests that are bad in their first lines: the request line, `Host` and the header fields (RFC 9112 2 to 5)."""

from __future__ import annotations

from tests.scenarios.corpus.outcomes import Forwarded, RequestCase, forwarded, refused

HEAD_BYTES, HEADERS, URL_BYTES = 4096, 32, 1024
"""The limits that the tests set: the defaults would only make the same cases slower."""


def line(first: bytes, host: bytes = b"a") -> bytes:
    """A request with this first line."""
    return first + b"\r\nHost: " + host + b"\r\n\r\n"


def get(*lines: bytes, target: bytes = b"/first", version: bytes = b"1.1") -> bytes:
    """A GET with these lines instead of a Host."""
    return b"".join(one + b"\r\n" for one in (b"GET " + target + b" HTTP/" + version, *lines)) + b"\r\n"


def hosted(host: bytes, target: bytes = b"/first") -> bytes:
    return get(b"Host: " + host, target=target)


GET = get(b"Host: a")

REQUEST_LINES: list[RequestCase] = [
    *(
        refused(f"line-{name}", "RFC 9112 3", line(first))
        for name, first in (
            ("method-empty", b" /first HTTP/1.1"),
            ("method-with-junk", b"G@T /first HTTP/1.1"),
            ("method-with-slash", b"GET/ /first HTTP/1.1"),
            ("method-with-colon", b"GET: /first HTTP/1.1"),
            ("method-not-ascii", b"G\xcbT /first HTTP/1.1"),
            ("method-of-33-bytes", b"M" * 33 + b" /first HTTP/1.1"),
            ("method-with-nul", b"GET\0 /first HTTP/1.1"),
            ("tab-behind-method", b"GET\t/first HTTP/1.1"),
            ("tab-before-version", b"GET /first\tHTTP/1.1"),
            ("leading-space", b" GET /first HTTP/1.1"),
            ("trailing-space", b"GET /first HTTP/1.1 "),
            ("trailing-words", b"GET /first HTTP/1.1 HTTP/1.1"),
            ("two-spaces-behind-method", b"GET  /first HTTP/1.1"),
            ("two-spaces-before-version", b"GET /first  HTTP/1.1"),
            ("two-targets", b"GET /first /other HTTP/1.1"),
            ("no-target", b"GET HTTP/1.1"),
            ("no-version", b"GET /first"),
            ("version-1.10", b"GET /first HTTP/1.10"),
            ("version-01.1", b"GET /first HTTP/01.1"),
            ("version-1", b"GET /first HTTP/1"),
            ("version-1.x", b"GET /first HTTP/1.x"),
            ("version-negative", b"GET /first HTTP/-1.1"),
            ("version-lower-case", b"GET /first http/1.1"),
            ("version-with-space", b"GET /first HTTP /1.1"),
            ("version-10.1", b"GET /first HTTP/10.1"),
            ("version-2", b"GET /first HTTP/2"),
            ("version-not-ascii", b"GET /first HTTP/1.\xb2"),
            ("protocol-other", b"GET /first XTTP/1.1"),
            ("protocol-rtsp", b"GET /first RTSP/1.0"),
            ("protocol-rtsp-method", b"DESCRIBE /first RTSP/1.0"),
            ("protocol-icecast", b"SOURCE /first ICE/1.0"),
            ("bare-lf", b"GET /first HTTP/1.1\nX: y"),
            ("bare-cr", b"GET /first HTTP/1.1\rX: y"),
            ("two-cr", b"GET /first HTTP/1.1\r"),
            ("target-with-nul", b"GET /fi\0rst HTTP/1.1"),
            ("target-with-del", b"GET /fi\x7frst HTTP/1.1"),
            ("target-with-control", b"GET /fi\x01rst HTTP/1.1"),
            ("target-with-tab", b"GET /fi\trst HTTP/1.1"),
            ("target-with-lf", b"GET /fi\nrst HTTP/1.1"),
            ("target-with-cr", b"GET /fi\rrst HTTP/1.1"),
            ("target-not-ascii", "GET /fïrst HTTP/1.1".encode()),
            ("target-not-utf-8", b"GET /\xff\xfe HTTP/1.1"),
            ("target-fragment", b"GET /first#x HTTP/1.1"),
            ("target-fragment-in-query", b"GET /first?q#x HTTP/1.1"),
            ("target-relative", b"GET first HTTP/1.1"),
            ("target-query-alone", b"GET ?q HTTP/1.1"),
            ("target-asterisk-with-get", b"GET * HTTP/1.1"),
            ("target-asterisk-and-more", b"OPTIONS *x HTTP/1.1"),
            ("target-authority", b"GET a:80 HTTP/1.1"),
            ("absolute-https", b"GET https://a/first HTTP/1.1"),
            ("absolute-ftp", b"GET ftp://a/first HTTP/1.1"),
            ("absolute-file", b"GET file:///etc/passwd HTTP/1.1"),
            ("absolute-no-slashes", b"GET http:a/first HTTP/1.1"),
            ("absolute-no-authority", b"GET http:///first HTTP/1.1"),
            ("absolute-empty", b"GET http:// HTTP/1.1"),
            ("absolute-userinfo", b"GET http://user@a/first HTTP/1.1"),
            ("absolute-password", b"GET http://user:pass@a/first HTTP/1.1"),
            ("absolute-bad-port", b"GET http://a:x/first HTTP/1.1"),
            ("absolute-comma", b"GET http://a,b/first HTTP/1.1"),
            ("absolute-escape", b"GET http://a%00b/first HTTP/1.1"),
            ("absolute-backslash", b"GET http://a\\b/first HTTP/1.1"),
            ("absolute-open-bracket", b"GET http://[::1/first HTTP/1.1"),
        )
    ),
    *(
        refused(
            f"line-version-{version.decode()}", "RFC 9110 15.6.6", line(b"GET /first HTTP/" + version), 505
        )
        for version in (b"0.9", b"2.0", b"3.0", b"3.7")
    ),
    *(
        refused(f"line-{name}", "RFC 9110 9.3.6: no route makes a tunnel of it", line(first), 405)
        for name, first in (
            ("connect", b"CONNECT a:443 HTTP/1.1"),
            ("connect-path", b"CONNECT /first HTTP/1.1"),
            ("connect-absolute", b"CONNECT http://a/ HTTP/1.1"),
        )
    ),
    refused(
        "line-connect-bad-host", "RFC 9112 3.2 holds for it, too", line(b"CONNECT a:443 HTTP/1.1", b"b c")
    ),
    *(
        forwarded(
            f"line-method-{name}",
            "RFC 9110 9.1: any token, in its own case",
            line(method + b" /first HTTP/1.1"),
            Forwarded(method=method),
        )
        for name, method in (
            ("lower-case", b"get"),
            ("mixed-case", b"Get"),
            ("unknown", b"FOO"),
            ("prefixed", b"XGET"),
            ("suffixed", b"GETX"),
            ("with-dash", b"VERSION-CONTROL"),
            ("connect-in-lower-case", b"connect"),
            ("of-every-mark", b"!#$%&'*+-.^_`|~0"),
            ("of-one-byte", b"M"),
            ("of-32-bytes", b"M" * 32),
        )
    ),
    *(
        forwarded(
            f"line-version-{version.decode()}",
            "RFC 9110 2.5: a later minor version is read as 1.1",
            line(b"GET /first HTTP/" + version),
        )
        for version in (b"1.2", b"1.9")
    ),
    refused("line-simple-request", "HTTP/0.9 has no head, and no end to it", b"GET /first\r\n\r\n"),
    refused("absolute-no-host", "RFC 9112 3.2: Host is required all the same", get(target=b"http://a/first")),
    refused(
        "absolute-bad-host", "RFC 9112 3.2: a bad Host is bad, used or not", hosted(b"b c", b"http://a/first")
    ),
    forwarded(
        "absolute-differs-from-host",
        "RFC 9112 3.2.2: the target wins, and the upstream sees one host",
        hosted(b"b", b"http://a:81/first?q"),
        Forwarded(b"/first?q", host=b"a:81"),
    ),
    forwarded(
        "absolute-without-path",
        "RFC 9112 3.2.1: an empty path is /",
        hosted(b"a", b"HTTP://a"),
        Forwarded(b"/"),
    ),
    forwarded(
        "absolute-query-alone",
        "RFC 9112 3.2.1",
        hosted(b"a", b"http://a?x=http://b/"),
        Forwarded(b"/?x=http://b/"),
    ),
    forwarded(
        "absolute-options-without-path",
        "RFC 9112 3.2.4: the last proxy must make it *",
        line(b"OPTIONS http://a HTTP/1.1"),
        Forwarded(b"*", b"OPTIONS"),
    ),
    forwarded("options-asterisk", "RFC 9112 3.2.4", line(b"OPTIONS * HTTP/1.1"), Forwarded(b"*", b"OPTIONS")),
    forwarded(
        "target-like-an-authority",
        "RFC 9112 3.2.1: behind the first slash it is a path",
        line(b"GET //evil/first HTTP/1.1"),
        Forwarded(b"//evil/first"),
    ),
    forwarded(
        "target-like-a-url",
        "the same",
        line(b"GET /http://evil/ HTTP/1.1"),
        Forwarded(b"/http://evil/"),
    ),
    *(
        forwarded(
            f"line-empty-ones-in-front{name}", "RFC 9112 2.2: ignored", b"\r\n" * count + get(b"Host: a")
        )
        for name, count in (("", 2), ("-of-many", 2000))
    ),
    *(
        refused(f"line-behind-{name}", "RFC 9112 2.2: an empty line is a CRLF and nothing else", front + GET)
        for name, front in (
            ("lone-cr", b"\r"),
            ("lone-lf", b"\n"),
            ("two-cr", b"\r\r\n"),
            ("empty-line-and-lone-cr", b"\r\n\r"),
            ("empty-line-and-lone-lf", b"\r\n\n"),
            ("empty-line-and-space", b"\r\n "),
            ("space-in-an-empty-line", b" \r\n"),
        )
    ),
    forwarded(
        "http-1.0",
        "RFC 9112 2.3: goes on as 1.1, closes without keep-alive",
        get(b"Host: a", version=b"1.0"),
        Forwarded(closes=True),
    ),
    forwarded(
        "http-1.0-no-host",
        "RFC 9112 3.2: an empty Host would be refused, so the upstream gets its own address",
        get(version=b"1.0"),
        Forwarded(host=None, closes=True),
    ),
    forwarded(
        "http-1.0-keep-alive",
        "RFC 9112 9.3",
        get(b"Host: a", b"Connection: keep-alive", version=b"1.0"),
        Forwarded(lacks=(b"connection", b"keep-alive")),
    ),
    forwarded(
        "http-1.0-expect",
        "RFC 9110 10.1.1: a 1.0 client cannot mean it",
        get(b"Host: a", b"Expect: 100-continue", version=b"1.0"),
        Forwarded(lacks=(b"expect",), closes=True),
    ),
]

HOSTS: list[RequestCase] = [
    refused("host-missing", "RFC 9112 3.2", get()),
    refused("host-twice", "RFC 9112 3.2", get(b"Host: a", b"Host: b")),
    refused("host-twice-equal", "RFC 9112 3.2", get(b"Host: a", b"Host: a")),
    refused("host-twice-first-empty", "RFC 9112 3.2", get(b"Host:", b"Host: a")),
    refused("host-twice-last-empty", "RFC 9112 3.2", get(b"Host: a", b"Host:")),
    refused("host-twice-in-1.0", "RFC 9112 3.2", get(b"Host: a", b"host: b", version=b"1.0")),
    refused("host-space-before-colon", "RFC 9112 5.1", get(b"Host : a")),
    refused("host-folded", "RFC 9112 5.2", get(b"Host: a", b" b")),
    *(
        refused(f"host-{name}", "RFC 9112 3.2, RFC 3986 3.2.2: not one host", hosted(host))
        for name, host in (
            ("empty", b""),
            ("inner-space", b"a b"),
            ("inner-tab", b"a\tb"),
            ("slash", b"a/b"),
            ("backslash", b"a\\b"),
            ("userinfo", b"user@a"),
            ("comma", b"a,b"),
            ("list", b"a, b"),
            ("port-word", b"a:x"),
            ("port-negative", b"a:-80"),
            ("port-too-long", b"a:800000"),
            ("port-too-big", b"a:65536"),
            ("two-ports", b"a:80:80"),
            ("port-alone", b":80"),
            ("scheme", b"http://a"),
            ("query", b"a?b"),
            ("fragment", b"a#b"),
            ("escape", b"a%2fb"),
            ("open-bracket", b"[::1"),
            ("bracket-inside", b"a[::1]"),
            ("brackets-empty", b"[]"),
            ("brackets-with-name", b"[a.example]"),
            ("zone", b"[fe80::1%25eth0]"),
            ("unicode", "bücher.example".encode()),
            ("latin-1", b"b\xfccher.example"),
            ("nul", b"a\0b"),
            ("cr", b"a\rb"),
            ("quote", b'"a"'),
            ("asterisk", b"*"),
        )
    ),
    forwarded("host-space-around", "RFC 9112 5.1: not part of the value", hosted(b" a\t "), Forwarded()),
    forwarded("host-v6", "RFC 3986 3.2.2", hosted(b"[::1]:80"), Forwarded(host=b"[::1]:80")),
    forwarded("host-empty-port", "RFC 3986 3.2.3", hosted(b"a:"), Forwarded(host=b"a:")),
    forwarded(
        "host-override-fields",
        "they are the upstream's to trust or not; Host stays what it was",
        get(b"Host: a", b"X-Forwarded-Host: evil", b"X-Host: evil"),
        Forwarded(has=((b"x-forwarded-host", b"evil"),)),
    ),
]

FIELDS: list[RequestCase] = [
    *(
        refused(f"field-{name}", "RFC 9112 5, RFC 9110 5.1 and 5.5", get(b"Host: a", bad))
        for name, bad in (
            ("space-before-colon", b"X : y"),
            ("folded", b"X: y\r\n z"),
            ("folded-with-tab", b"X: y\r\n\tz"),
            ("folded-empty", b"X:\r\n \r\nY: z"),
            ("name-empty", b": y"),
            ("name-blank", b" : y"),
            ("no-colon", b"X"),
            ("no-colon-with-space", b"X y"),
            ("name-with-space", b"X y: z"),
            ("name-with-slash", b"X/y: z"),
            ("name-with-parenthesis", b"X(y): z"),
            ("name-with-quote", b'"X": z'),
            ("name-with-at", b"X@: z"),
            ("name-with-nul", b"X\0: z"),
            ("name-with-control", b"X\x01: z"),
            ("name-with-del", b"X\x7f: z"),
            ("name-not-ascii", "Ü: z".encode()),
            ("name-with-cr", b"X\ry: z"),
            ("value-with-nul", b"X: a\0b"),
            ("value-with-control", b"X: a\x08b"),
            ("value-with-escape", b"X: \x1b[2J"),
            ("value-with-del", b"X: a\x7fb"),
            ("value-with-cr", b"X: a\rb"),
            ("value-with-lf", b"X: a\nb"),
            ("value-splits", b"X: a\nGET /smuggled HTTP/1.1\nHost: a"),
            ("two-cr", b"X: y\r"),
        )
    ),
    refused("field-before-any-is-folded", "RFC 9112 2.2", get(b" X: y", b"Host: a")),
    refused("head-ends-with-bare-lf", "RFC 9112 2.2", b"GET /first HTTP/1.1\r\nHost: a\r\n\n"),
    refused("head-of-bare-lf", "RFC 9112 2.2", b"GET /first HTTP/1.1\nHost: a\n\n"),
    refused("head-ends-with-bare-cr", "RFC 9112 2.2", b"GET /first HTTP/1.1\r\nHost: a\r\n\rX"),
    forwarded(
        "field-value-obs-text",
        "RFC 9110 5.5: opaque bytes",
        get(b"Host: a", b"User-Agent: \xff\xfe\xc3", b"X: \x80"),
        Forwarded(has=((b"user-agent", b"\xff\xfe\xc3"), (b"x", b"\x80"))),
    ),
    forwarded(
        "field-value-empty",
        "RFC 9110 5.5",
        get(b"Host: a", b"X:", b"Y: "),
        Forwarded(has=((b"x", b""), (b"y", b""))),
    ),
    forwarded(
        "field-value-spaced",
        "RFC 9112 5.1",
        get(b"Host: a", b"X: \t y  z \t "),
        Forwarded(has=((b"x", b"y  z"),)),
    ),
    forwarded(
        "field-name-of-odd-tokens",
        "RFC 9110 5.6.2",
        get(b"Host: a", b"!#$%&'*+-.^_`|~: y"),
        Forwarded(has=((b"!#$%&'*+-.^_`|~", b"y"),)),
    ),
    forwarded(
        "request-id-that-splits-logs",
        "SPEC 4: one that is not plain is made anew",
        get(b"Host: a", b"X-Request-Id: a b", b"X-Request-Id: \xff"),
    ),
    forwarded(
        "traceparent-twice",
        "W3C: invalid, so a new trace starts; the upstream sees one",
        get(b"Host: a", *[b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] * 2),
    ),
]

LIMITS: list[RequestCase] = [
    refused("limit-url", "SPEC 4: 414", line(b"GET /" + b"x" * URL_BYTES + b" HTTP/1.1"), 414),
    refused(
        "limit-url-without-end",
        "refused as soon as it is too long",
        b"GET /" + b"x" * (HEAD_BYTES + 1),
        414,
        whole=False,
    ),
    forwarded(
        "limit-url-reached",
        "the limit itself is allowed",
        line(b"GET /" + b"x" * (URL_BYTES - 1) + b" HTTP/1.1"),
        Forwarded(b"/" + b"x" * (URL_BYTES - 1)),
    ),
    refused("limit-headers", "SPEC 4: 431", get(b"Host: a", *[b"X: y"] * HEADERS), 431),
    forwarded("limit-headers-reached", "the limit itself", get(b"Host: a", *[b"X: y"] * (HEADERS - 1))),
    refused("limit-value", "SPEC 4: 431", get(b"Host: a", b"X: " + b"y" * HEAD_BYTES), 431),
    refused("limit-name", "SPEC 4: 431", get(b"Host: a", b"x" * HEAD_BYTES + b": y"), 431),
    refused("limit-head", "SPEC 4: 431", get(b"Host: a", *[b"X: " + b"y" * 500] * 9), 431),
    refused(
        "limit-head-without-end",
        "refused as soon as it is too long",
        b"GET /first HTTP/1.1\r\nX: " + b"y" * (HEAD_BYTES + 1),
        431,
        whole=False,
    ),
    *(
        refused(f"endless-{name}", "its end is not waited for", data, whole=False)
        for name, data in (
            ("method", b"M" * 33),
            ("method-of-the-whole-head", b"M" * (HEAD_BYTES + 1)),
            ("spaces", b" " * (HEAD_BYTES + 1)),
            ("line-of-lf", b"\n" * (HEAD_BYTES + 1)),
            ("line-of-cr", b"\r" * (HEAD_BYTES + 1)),
            ("line-of-nul", bytes(HEAD_BYTES + 1)),
        )
    ),
    *(
        refused(f"endless-{name}", "the head's limit holds for its first line", data, status, whole=False)
        for name, data, status in (
            ("target", b"GET /" + b"x" * URL_BYTES + b"y" * HEAD_BYTES, 414),
            ("version", b"GET /first HTTP/" + b"1" * HEAD_BYTES, 431),
            ("spaces-behind-target", b"GET /first" + b" " * HEAD_BYTES, 431),
        )
    ),
    *(
        refused(f"slow-{name}", "the clock runs from the first byte of a head", data, 408, whole=False)
        for name, data in (
            ("method-of-32-bytes", b"M" * 32),
            ("behind-empty-lines", b"\r\n\r\nG"),
            ("lone-cr-behind-a-line", b"GET /first HTTP/1.1\r"),
        )
    ),
    refused("slow-request-line", "the head's timeout", b"GET /fir", 408, whole=False),
    refused("slow-method", "it runs from the first byte", b"GE", 408, whole=False),
    refused("slow-head", "SPEC 4: 408", b"GET /first HTTP/1.1\r\nHost: a\r\nX", 408, whole=False),
    refused(
        "slow-head-end", "one byte is missing", b"GET /first HTTP/1.1\r\nHost: a\r\n\r", 408, whole=False
    ),
]

NOISE: list[RequestCase] = [
    refused(
        "noise-tls-client-hello",
        "TLS on a plain port",
        bytes.fromhex("160301006a010000660303") + bytes(range(32)) + b"\0\0\x04\x13\x01\x13\x02\x01\0",
    ),
    refused("noise-smtp", "another protocol", b"EHLO mail.example\r\nMAIL FROM:<a@b>\r\n"),
    refused("noise-redis", "another protocol", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"),
    refused("noise-memcached", "another protocol", b"set a 0 0 1\r\nb\r\n"),
    refused("noise-ssh", "another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
    refused(
        "noise-proxy-protocol", "not configured", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + get(b"Host: a")
    ),
    refused("noise-proxy-protocol-2", "not configured", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)),
    refused("noise-response", "a response is no request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    refused("noise-nuls", "nothing at all", bytes(64)),
    refused("noise-bom", "a byte order mark is no method", b"\xef\xbb\xbf" + get(b"Host: a")),
]


CASES = REQUEST_LINES + HOSTS + FIELDS + LIMITS + NOISE
