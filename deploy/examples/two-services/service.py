"""A service of the standard library alone: python3 service.py PORT [NEXT]

GET /?seconds=N takes N seconds. With NEXT it asks that first, by `http_proxy`, and passes the trace context on.
"""

import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece
    next = ""

    def do_GET(self) -> None:
        status, text = 200, "in stock\n"
        if self.next:
            status, text = self.ask()
        else:
            (seconds,) = parse_qs(urlsplit(self.path).query).get("seconds", ["0"])
            time.sleep(float(seconds))
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def ask(self) -> tuple[int, str]:
        context = {name: self.headers[name] for name in ("traceparent", "tracestate") if name in self.headers}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.next + self.path, headers=context)
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


Service.next = "".join(sys.argv[2:])
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
