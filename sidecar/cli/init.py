"""`sidecar init [FILE]`: a configuration to begin with, which `sidecar check` accepts and `sidecar run` serves.

It has what a first service needs, with the keys that people change first as comments beside their defaults. It is
written for a person, so it is text and not rendered from the schema; a test holds each of its keys against that.
"""

from __future__ import annotations

import argparse
import os
import sys

from sidecar.config.chosen import DEFAULT_FILE

_STARTER = """\
# Where calls come in, where they go, and what protects them. `sidecar check {file}` says what is wrong, and where;
# `sidecar explain {file} http://localhost/` says which route takes a call, and each limit that holds for it.
# Every key, with its unit and default: `sidecar schema --markdown`.
version: 1

listeners:
  inbound: {{address: "0.0.0.0:15006"}}       # calls to this app
  outbound: {{address: "127.0.0.1:15001"}}    # this app's calls to others: set http_proxy=http://127.0.0.1:15001

upstreams:
  app: {{endpoints: ["127.0.0.1:{port}"]}}
  # payments: {{endpoints: ["payments.shop:8080"]}}

routes:
- name: app
  upstream: app
  # timeouts: {{request: 15s}}               # all of a call; a caller with less time left gets what it has left
  # circuit_breaker: {{consecutive_failures: 5, open_for: 5s}}
# - name: payments
#   listener: outbound
#   match: {{hosts: [payments.shop]}}
#   upstream: payments
#   retry: {{attempts: 2}}                    # of calls that may be sent twice
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and what for."""
    parser.add_argument(
        "file", nargs="?", default=DEFAULT_FILE, metavar="FILE", help=f"default: {DEFAULT_FILE}"
    )
    parser.add_argument(
        "--app-port", type=_port, default=8080, metavar="PORT", help="of your app; default: 8080"
    )


def main(options: argparse.Namespace) -> int:
    """Write it; 1 if the file is there already or cannot be written."""
    try:
        with open(options.file, "x", encoding="utf-8") as file:
            file.write(_STARTER.format(file=options.file, port=options.app_port))
    except FileExistsError:
        print(
            f"sidecar: {options.file} is there already and stays as it is; name another file", file=sys.stderr
        )
        return 1
    except OSError as error:
        print(f"sidecar: {options.file} cannot be written: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return 1
    shown = "" if options.file == DEFAULT_FILE else f" {options.file}"
    print(f"{options.file} is written. Next: sidecar check {options.file}, then sidecar run{shown}")
    return 0


def _port(text: str) -> int:
    """Raises: ArgumentTypeError."""
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; say 1 to 65535")
