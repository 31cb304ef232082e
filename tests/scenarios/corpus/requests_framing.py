"""Requests whose end can be seen in two places: the raw material of request smuggling (RFC 9112 6 and 11.2)."""

from __future__ import annotations

from dataclasses import replace

from tests.scenarios.corpus.extensions import BAD_EXTENSIONS, GOOD_EXTENSIONS
from tests.scenarios.corpus.outcomes import Forwarded, RequestCase, cut, forwarded, refused

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"
MAX_SIZE_LINE_BYTES = 4096
"""Of a chunk's size with its extensions."""


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"POST /first HTTP/" + version, b"Host: a", *lines))
    return head + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def coding(value: bytes, body: bytes = HELLO) -> bytes:
    return post(b"Transfer-Encoding: " + value, body=body)


HAS_LENGTH = Forwarded(method=b"POST", body=b"hello", framing="length", has=((b"content-length", b"5"),))
HAS_CHUNKS = Forwarded(method=b"POST", body=b"hello", framing="chunked")

TWO_FRAMINGS: list[RequestCase] = [
    refused(
        "cl-te",
        "RFC 9112 6.3 (3): both are there, the next hop may obey the other one",
        post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG"),
    ),
    refused(
        "te-cl",
        "RFC 9112 6.3 (3): the same, the other way round",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"5c\r\n" + SMUGGLED + b"0\r\n\r\n"),
    ),
    refused(
        "cl-0-te",
        "a length of zero is a length",
        post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    refused(
        "te-cl-in-get",
        "the method changes nothing",
        b"GET /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + HELLO,
    ),
    refused(
        "cl-equal-twice",
        "RFC 9112 6.3 (5) allows to repair equal lengths; refused, never repaired",
        post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    ),
    refused(
        "cl-different-twice",
        "RFC 9112 6.3 (5)",
        post(b"Content-Length: 5", b"Content-Length: 40", body=b"hello" + SMUGGLED),
    ),
    refused(
        "cl-zero-and-more",
        "RFC 9112 6.3 (5): a CL.0 desync",
        post(b"Content-Length: 0", b"Content-Length: 35", body=SMUGGLED),
    ),
    refused(
        "cl-twice-in-other-case",
        "RFC 9110 5.1: names have no case",
        post(b"content-length: 5", b"CONTENT-LENGTH: 6", body=b"hello!"),
    ),
    refused(
        "te-in-http-1.0", "RFC 9112 6.1", post(b"Transfer-Encoding: chunked", body=HELLO, version=b"1.0")
    ),
    refused(
        "te-and-cl-in-http-1.0",
        "RFC 9112 6.1",
        post(
            b"Connection: keep-alive",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            body=HELLO,
            version=b"1.0",
        ),
    ),
    forwarded(
        "cl-beside-a-look-alike",
        "RFC 9110 5.1: an underscore makes another name, which frames nothing",
        post(b"Content-Length: 5", b"Content_Length: 0", b"Transfer_Encoding: chunked", body=b"hello"),
        HAS_LENGTH,
    ),
]

LENGTHS: list[RequestCase] = [
    *(
        refused(f"cl-{name}", "RFC 9112 6.2: 1*DIGIT and nothing else", length(value))
        for name, value in (
            ("plus", b"+5"),
            ("minus", b"-5"),
            ("minus-zero", b"-0"),
            ("hex", b"0x5"),
            ("hex-digit", b"a"),
            ("underscore", b"1_000"),
            ("list-of-equals", b"5, 5"),
            ("list", b"5, 6"),
            ("leading-comma", b",5"),
            ("trailing-comma", b"5,"),
            ("inner-space", b"5 0"),
            ("empty", b""),
            ("blank", b"  \t"),
            ("fraction", b"5.0"),
            ("exponent", b"5e0"),
            ("quoted", b'"5"'),
            ("semicolon", b"5;q=1"),
            ("arabic-digit", "\u0665".encode()),
            ("fullwidth-digit", "\uff15".encode()),
            ("superscript", b"\xb2"),
            ("vertical-tab", b"\x0b5"),
            ("form-feed", b"5\x0c"),
            ("nul", b"5\0"),
            ("beyond-64-bits", b"99999999999999999999999"),
            ("wraps-to-5-in-64-bits", b"18446744073709551621"),
        )
    ),
    refused(
        "cl-beyond-signed-64-bits",
        "a next hop that counts in signed 64 bits would see a negative length",
        length(b"18446744073709551615"),
        whole=False,
    ),
    refused(
        "cl-line-folded",
        "RFC 9112 5.2: obs-fold is refused",
        post(b"Content-Length:", b" 5", body=b"hello"),
    ),
    refused("cl-space-before-colon", "RFC 9112 5.1", post(b"Content-Length : 5", body=b"hello")),
    refused("cl-tab-before-colon", "RFC 9112 5.1", post(b"Content-Length\t: 5", body=b"hello")),
    forwarded(
        "cl-space-around",
        "RFC 9112 5.1: white space around a value is not part of it, and does not go on",
        post(b"Content-Length: \t 5 \t", body=b"hello"),
        HAS_LENGTH,
    ),
    forwarded("cl-no-space", "RFC 9112 5.1", post(b"Content-Length:5", body=b"hello"), HAS_LENGTH),
    forwarded(
        "cl-leading-zeros",
        "RFC 9112 6.2 allows them",
        length(b"0005"),
        Forwarded(method=b"POST", body=b"hello", framing="length"),
    ),
    forwarded(
        "cl-zeros",
        "no body, and it stays no body",
        length(b"000", b""),
        Forwarded(method=b"POST", framing="length"),
    ),
    forwarded(
        "cl-zero-space-around",
        "the same with white space",
        length(b" 0 ", b""),
        Forwarded(method=b"POST", framing="length"),
    ),
    forwarded(
        "cl-in-get",
        "RFC 9110 9.3.1: a body of a GET means nothing, and is still a body",
        b"GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        Forwarded(body=SMUGGLED, framing="length"),
    ),
    forwarded("no-length", "RFC 9112 6.3 (7): no body", post(), Forwarded(method=b"POST")),
]

CODINGS: list[RequestCase] = [
    *(
        refused(f"te-{name}", "RFC 9112 6.1: this hop knows chunked alone, once", coding(value))
        for name, value in (
            ("chunked-chunked", b"chunked, chunked"),
            ("quoted", b'"chunked"'),
            ("inner-space", b"chun ked"),
            ("gzip-and-space", b"gzip chunked"),
            ("parameter", b"chunked;q=1"),
            ("leading-comma", b", chunked"),
            ("trailing-comma", b"chunked,"),
            ("vertical-tab", b"\x0bchunked"),
            ("form-feed-behind", b"chunked\x0c"),
            ("nul-behind", b"chunked\0"),
            ("nbsp", b"\xa0chunked"),
            ("empty", b""),
        )
    ),
    *(
        refused(f"te-{name}", "RFC 9112 6.1: well formed, and not known here", coding(value), 501)
        for name, value in (
            ("gzip", b"gzip"),
            ("gzip-in-mixed-case", b"GZip"),
            ("gzip-with-parameter", b"gzip;level=9"),
            ("identity", b"identity"),
            ("gzip-chunked", b"gzip, chunked"),
            ("gzip-chunked-in-mixed-case", b"gZIP,Chunked"),
            ("xchunked", b"xchunked"),
            ("chunkedx", b"chunkedx"),
            ("chunk", b"chunk"),
            ("cow", b"cow"),
            ("single-quoted", b"'chunked'"),
        )
    ),
    *(
        refused(f"te-{name}", "RFC 9112 6.3 (4): chunked and not the last one is malformed", coding(value))
        for name, value in (
            ("chunked-gzip", b"chunked, gzip"),
            ("chunked-identity", b"chunked, identity"),
            ("chunked-gzip-chunked", b"chunked, gzip, chunked"),
            ("chunked-in-mixed-case-gzip", b"CHUNKED,gzip"),
        )
    ),
    *(
        refused(f"te-gzip-{name}", "a head that is malformed elsewhere is no request at all", post(*lines))
        for name, lines in (
            ("behind-a-bad-field", (b"X\0: y", b"Transfer-Encoding: gzip")),
            ("before-a-bad-field", (b"Transfer-Encoding: gzip", b"X\0: y")),
        )
    ),
    refused(
        "te-gzip-and-cl",
        "RFC 9112 6.3 (3): two framings are malformed, whatever the coding",
        post(b"Transfer-Encoding: gzip", b"Content-Length: 5", body=b"hello"),
    ),
    refused("te-gzip-in-http-1.0", "RFC 9112 6.1", post(b"Transfer-Encoding: gzip", version=b"1.0")),
    refused(
        "te-twice",
        "RFC 9112 6.1: chunked must not be applied twice",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=HELLO),
    ),
    refused(
        "te-chunked-then-identity",
        "TE.TE: the next hop may take either",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=HELLO),
    ),
    refused(
        "te-identity-then-chunked",
        "TE.TE: both lines are one list (RFC 9110 5.3), with a coding that is not known here",
        post(b"Transfer-Encoding: identity", b"transfer-encoding: chunked", body=HELLO),
        501,
    ),
    refused("te-space-before-colon", "RFC 9112 5.1", post(b"Transfer-Encoding : chunked", body=HELLO)),
    refused("te-line-folded", "RFC 9112 5.2", post(b"Transfer-Encoding:", b" chunked", body=HELLO)),
    refused(
        "te-behind-leading-space", "RFC 9112 5.2", post(b"X: y", b" Transfer-Encoding: chunked", body=HELLO)
    ),
    refused("te-behind-bare-lf", "RFC 9112 2.2", post(b"X: y\nTransfer-Encoding: chunked", body=HELLO)),
    refused("te-behind-bare-cr", "RFC 9112 2.2", post(b"X: y\rTransfer-Encoding: chunked", body=HELLO)),
    refused("te-name-with-nul", "RFC 9110 5.1", post(b"Transfer-Encoding\0: chunked", body=HELLO)),
    forwarded("te-in-other-case", "RFC 9112 7: codings have no case", coding(b"ChUnKeD"), HAS_CHUNKS),
    forwarded(
        "te-space-around",
        "RFC 9112 5.1: white space around a value is not part of it",
        coding(b" chunked "),
        HAS_CHUNKS,
    ),
    refused(
        "te-name-with-obs-text",
        "RFC 9110 5.1: a name is a token",
        post(b"Transfer-Encoding\xa0: chunked", body=HELLO),
    ),
]

CHUNKS: list[RequestCase] = [
    *(
        cut(f"chunk-{name}", "RFC 9112 7.1: two readers would see the end in two places", chunked(body))
        for name, body in (
            ("size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
            ("size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("size-minus", b"-5\r\nhello\r\n0\r\n\r\n"),
            ("size-underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
            ("size-leading-space", b" 5\r\nhello\r\n0\r\n\r\n"),
            ("size-trailing-space", b"5 \r\nhello\r\n0\r\n\r\n"),
            ("size-trailing-tab", b"5\t\r\nhello\r\n0\r\n\r\n"),
            ("size-missing", b"\r\nhello\r\n0\r\n\r\n"),
            ("size-not-hex", b"g\r\nhello\r\n0\r\n\r\n"),
            ("size-wraps-to-5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("size-of-nuls", b"5\0\r\nhello\r\n0\r\n\r\n"),
            ("size-bare-lf", b"5\nhello\r\n0\r\n\r\n"),
            ("size-two-cr", b"5\r\r\nhello\r\n0\r\n\r\n"),
            ("size-cr-alone", b"5\rhello\r\n0\r\n\r\n"),
            ("data-too-long", b"5\r\nhello!\r\n0\r\n\r\n"),
            ("data-without-crlf", b"5\r\nhello0\r\n\r\n"),
            ("data-bare-lf", b"5\r\nhello\n0\r\n\r\n"),
            ("data-bare-cr", b"5\r\nhello\r0\r\n\r\n"),
            ("last-bare-lf", b"5\r\nhello\r\n0\n\r\n"),
            ("end-bare-lf", b"5\r\nhello\r\n0\r\n\n"),
            ("trailer-bare-lf", b"5\r\nhello\r\n0\r\nX: y\n\r\n"),
            ("trailer-folded", b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
            ("trailer-leading-space", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n"),
            ("trailer-without-colon", b"5\r\nhello\r\n0\r\nX y\r\n\r\n"),
            ("trailer-space-before-colon", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
            ("trailer-with-nul", b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
        )
    ),
    *(
        cut(f"{at}-{name}", "RFC 9112 7.1.1", chunked(body))
        for name, extension in BAD_EXTENSIONS
        for at, body in (
            ("chunk-ext", b"5%b\r\nhello\r\n0\r\n\r\n" % extension),
            ("last-chunk-ext", b"5\r\nhello\r\n0%b\r\n\r\n" % extension),
        )
    ),
    *(
        forwarded(
            f"chunk-ext-{name}",
            "RFC 9112 7.1.1: an extension ends at this hop",
            chunked(b"5%b\r\nhello\r\n0%b\r\n\r\n" % (extension, extension)),
            HAS_CHUNKS,
        )
        for name, extension in GOOD_EXTENSIONS
    ),
    cut(
        "chunk-ext-too-long",
        "SPEC 4: nobody uses them, so they have a limit",
        chunked(b"5;a=" + b"x" * MAX_SIZE_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n"),
        431,
    ),
    cut(
        "chunk-ext-without-end",
        "its end is not waited for",
        chunked(b"5;a=" + b"x" * MAX_SIZE_LINE_BYTES),
        431,
        whole=False,
    ),
    cut(
        "chunk-without-end",
        "SPEC 4: a stalled body is given up",
        chunked(b"5\r\nhello\r\n"),
        408,
        whole=False,
    ),
    cut("length-without-end", "the same with a length", length(b"50"), 408, whole=False),
    cut(
        "trailers-without-end",
        "a trailer section has a limit, as the head has",
        chunked(b"0\r\n" + b"X: y\r\n" * 2000),
        431,
        whole=False,
    ),
    cut(
        "trailer-too-long",
        "one trailer is limited, too",
        chunked(b"0\r\nX: " + b"y" * 9000),
        431,
        whole=False,
    ),
    forwarded(
        "chunk-huge-but-valid",
        "it frames nothing on the other side: pieces go on as they come",
        chunked(b"000000000005\r\nhello\r\n0\r\n\r\n"),
        HAS_CHUNKS,
    ),
    forwarded(
        "chunk-upper-case",
        "RFC 9112 7.1",
        chunked(b"A\r\n0123456789\r\n00\r\n\r\n"),
        Forwarded(
            method=b"POST",
            body=b"0123456789",
            framing="chunked",
        ),
    ),
    forwarded(
        "chunks-of-one",
        "no reader may join or split them",
        chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in b"hello") + b"0\r\n\r\n"),
        HAS_CHUNKS,
    ),
    forwarded(
        "chunked-empty", "RFC 9112 7.1", chunked(b"0\r\n\r\n"), Forwarded(method=b"POST", framing="chunked")
    ),
    forwarded(
        "chunk-holds-a-request",
        "a body is data, whatever it looks like",
        chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
        Forwarded(method=b"POST", body=SMUGGLED, framing="chunked"),
    ),
    *(
        cut(
            f"trailer-{name}",
            "RFC 9112 7.1.2: framing that comes late is framing that somebody may believe",
            chunked(b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"),
        )
        for name, trailer in (
            ("content-length", b"Content-Length: 35"),
            ("transfer-encoding", b"Transfer-Encoding: chunked"),
            ("transfer-encoding-gzip", b"Transfer-Encoding: gzip"),
        )
    ),
    RequestCase(
        "trailer-connection-close",
        "some reader heeds it, so the answer says the same, and what follows is not read",
        chunked(b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n") + SMUGGLED,
        (replace(HAS_CHUNKS, closes=True),),
    ),
    forwarded(
        "trailers-forbidden",
        "RFC 9110 6.5.1: routing, authentication and the connection's own fields never come late",
        chunked(
            b"5\r\nhello\r\n0\r\nHost: evil\r\nAuthorization: x\r\nX-Checksum: 1\r\nTE: trailers\r\n"
            b"Connection: upgrade\r\nUpgrade: h2c\r\nTrailer: x\r\n\r\n"
        ),
        replace(HAS_CHUNKS, trailers=((b"x-checksum", b"1"),), closes=True),
    ),
]

CASES = TWO_FRAMINGS + LENGTHS + CODINGS + CHUNKS
