"""Orders, by FastAPI: to answer, it asks another service, `payments`.

http_proxy=http://127.0.0.1:15001 uvicorn app:app --port 8000
"""

import json
import urllib.error
import urllib.request

from fastapi import FastAPI, Request

PASSED_ON = ("traceparent", "tracestate")
"""What ties a call to the request that it is made for. An app with OpenTelemetry passes it on by itself."""

app = FastAPI()


@app.get("/orders/{number}")
def order(number: int, request: Request) -> dict[str, object]:
    context = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    call = urllib.request.Request(f"http://payments/accounts/{number}", headers=context)
    try:
        with urllib.request.urlopen(call) as answer:  # through the sidecar, by http_proxy
            return {"order": number, "account": json.load(answer)}
    except urllib.error.HTTPError as error:
        # An order without its account is better than none. The sidecar says why there is no answer (RFC 9209), so the
        # app needs no timeouts and no counting of its own.
        return {
            "order": number,
            "account": None,
            "why": error.headers.get("proxy-status", "payments says so"),
        }
