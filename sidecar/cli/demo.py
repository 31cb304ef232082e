"""`sidecar demo`: three services, their sidecars, faults on a schedule, and what comes of it, live."""

from __future__ import annotations

import argparse
import signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, and for whom."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="to the end of the story; exit 1 if a claim fails")
    how.add_argument(
        "--serve",
        action="store_true",
        help="the story once, then stay until Ctrl-C, with the dashboard's address: clients keep calling, and an "
        "upstream is not always well",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--tour",
        action="store_true",
        help="ten steps with the commands that one works with; in a terminal each waits for Enter",
    )
    what.add_argument(
        "--fleet",
        action="store_true",
        help="another story: three replicas that act as one by a Redis, which the demo starts; once, in lines",
    )
    what.add_argument(
        "--grpc",
        action="store_true",
        help="what gRPC is given: deadlines, cancellation, an open breaker; once, in lines",
    )
    what.add_argument(
        "--tls",
        action="store_true",
        help="mutual TLS between the sidecars, with certificates by `sidecar certs`; once, in lines",
    )
    parser.add_argument("--otlp", metavar="URL", help="export telemetry, such as to http://127.0.0.1:4317")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument("--log", action="store_true", help="with lines: every call that a service has served")
    parser.add_argument("--pause", type=float, help="seconds after each scene; default: 0.3, live 2")
    # Breaks the demo on purpose, so that a test sees it say so.
    parser.add_argument("--breaker-mode", default="enforce", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Play; 0 when every claim holds, 1 when one does not or nothing can be started, 130 for `--once` interrupted.

    Ctrl-C and SIGTERM end it at any moment; all processes that it started have ended when it returns.
    """
    try:
        # Here, as it takes a moment: Ctrl-C within it should leave no traceback either.
        from sidecar.demo.play import run

        return run(options)
    finally:
        # Nothing is left to interrupt but the end of this process, which would only leave a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
