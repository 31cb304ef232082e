"""Pieces of messages that are worth putting in somewhere: what readers look for, and what has confused some."""

from __future__ import annotations

from typing import Final

HTTP_WORDS: Final = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b": ", b",", b";", b"\x80", b"\xff", b"\x7f",
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS * ", b"CONNECT a:1 ", b"get ", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0",
    b" HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 S\r\n",
    b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n", b"HTTP/1.0 200 OK\r\n",
    b"Host: app\r\n", b"Host: ", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: ", b"chunked", b"gzip, chunked", b"identity",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\n", b"Connection: ",
    b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n",
    b"Trailer: X\r\n", b"Keep-Alive: timeout=5\r\n", b"traceparent: ", b"X-Forwarded-For: 1.2.3.4\r\n",
    b"Max-Forwards: 0\r\n", b"x-envoy-upstream-rq-timeout-ms: 5\r\n", b"Content-Type: application/grpc\r\n",
    b"Proxy-Connection: close\r\n", b"X-A: b\r\n", b"X_A: b\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"1\r\nx\r\n",
    b"ffffffffffffffff", b"-1", b"+5", b"0x5", b"05", b"1;a=b", b"http://app/", b"//", b"/../", b"%2e", b"%00",
    b"18446744073709551616", b"9223372036854775808",
)  # fmt: skip

CHUNK_WORDS: Final = (
    b"\r\n", b"\n", b"\r", b"0\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"a\r\n0123456789\r\n", b"00", b"0x1", b"-1", b"+1",
    b";a", b";a=b", b';a="b\\""', b";", b"=", b'"', b"X-T: 1\r\n", b"Content-Length: 5\r\n", b"\0", b"\xff", b" ",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"fffffffffffffff\r\n", b"10000000000000000\r\n",
)  # fmt: skip

PATH_WORDS: Final = (
    b"/", b"//", b"/.", b"/..", b"/../", b"%2F", b"%2f", b"%5C", b"\\", b"%2e", b"%2E%2E", b"%25", b"%252f", b"%",
    b"%0", b";", b";a=b", b"?", b"&", b"=", b"+", b"#", b"/admin", b"/public", b"/exact", b"/a/b", b"http://", b"@",
    b":80", b"[::1]", b"*.", b".internal", b"payments", b"a=1", b"%41", b"[]", b"\xc3\xa9", b" ", b"HTTP://",
)  # fmt: skip

FIELD_WORDS: Final = (
    b"00-", b"-01", b"-00", b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331", b"sidecar=", b",", b"=", b"@",
    b"0" * 32, b"0" * 16, b"ff-", b"-", b"deadline-ms=", b"deadline-ms", b";", b" ", b"\t", b"100m", b"1H", b"1.5s",
    b"500ms", b"1m30s", b"99999999S", b"-1", b"0", b"999999999999999999", b"for=", b";proto=https", b'"', b"\\",
    b'for="[::1]:80"', b"unknown", b"1.2.3.4", b"close", b"keep-alive", b"upgrade", b"content-length", b"host",
    b"timeout=5", b"max=1", b"nan", b"inf", b"1e5", b"\xc2\xb5s", b"10n", b"password=a", b"&", b"token",
)  # fmt: skip

YAML_WORDS: Final = (
    b"\n", b"\n  ", b"- ", b": ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: *a", b"!!str ", b"|\n", b">-\n", b"'",
    b'"', b"# ", b"---\n", b"...\n", b"%YAML 1.1\n", b"\t", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"${A}",
    b"${A:-b}", b"version: 1\n", b"routes:\n", b"upstreams:\n", b"listeners:\n", b"name: app\n", b"path: {regex: ",
    b"endpoints: ", b'"127.0.0.1:1"', b"kind: Pod\n", b"kind: Deployment\n", b"metadata:\n", b"spec:\n", b"null",
    b"containers:\n", b"template:\n", b"annotations:\n", b"sidecar.io/inject", b"sidecar.io/status", b"~", b"\r\n",
    b"1e999", b"0x", b"1_0", b"10ms", b"1h", b"5MiB", b"100%", b"\0",
)  # fmt: skip

JSON_WORDS: Final = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"1e999", b"-0", b'"uid":"u"', b'"request":{',
    b'"object":{', b'"spec":{', b'"containers":[', b'"name":"app"', b'"metadata":{', b'"annotations":{',
    b'"kind":"Pod"', b'"ports":[{"containerPort":8080}]', b'"env":[', b'"initContainers":[', b'"labels":{',
    b'"sidecar.io/inject":"true"', b'"sidecar.io/app-port":"1"', b'"sidecar.io/mode":"container"', b'\\ud800',
    b'"os":{"name":"windows"}', b'"volumes":[', b'"apiVersion":"admission.k8s.io/v1"', b'"restartPolicy":"Always"',
)  # fmt: skip
