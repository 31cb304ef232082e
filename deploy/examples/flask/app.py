"""A catalogue, by Flask. Every fifth answer is a failure, as from one broken worker of five.

flask run --port 8000
"""

import itertools

from flask import Flask, jsonify

app = Flask(__name__)
calls = itertools.count(1)


@app.get("/items/<name>")
def item(name: str):  # type: ignore[no-untyped-def]
    if next(calls) % 5 == 0:
        return jsonify(error="this worker has lost its database"), 503
    return jsonify(name=name)


@app.post("/items/<name>")
def change(name: str):  # type: ignore[no-untyped-def]
    return jsonify(error="read only"), 503
