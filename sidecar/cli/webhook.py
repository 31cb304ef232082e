"""`sidecar webhook`: the mutating admission webhook that injects the sidecar into pods as they are made."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from sidecar.cli import early_signals
from sidecar.cli.inject import add_settings, settings_of
from sidecar.kubernetes.settings import Settings
from sidecar.kubernetes.webhook import POLL_SECONDS, TlsFiles, Webhook

DIRECTORY = "/etc/sidecar-webhook"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--host", default="0.0.0.0", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8443, help="default: %(default)s")
    parser.add_argument("--tls-certificate", default=f"{DIRECTORY}/tls.crt", help="default: %(default)s")
    parser.add_argument("--tls-key", default=f"{DIRECTORY}/tls.key", help="default: %(default)s")
    parser.add_argument(
        "--client-ca",
        metavar="FILE",
        help="answer only clients with a certificate of this CA; probes need none",
    )
    parser.add_argument(
        "--tls-poll", type=float, default=POLL_SECONDS, metavar="SECONDS", help="default: %(default)s"
    )
    add_settings(parser)


def main(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0 then, 1 if the address or the certificate cannot be used, 2 for flags that cannot hold together.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_serve(options, settings_of(options)))
    except ValueError as error:
        print(f"sidecar webhook: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sidecar webhook: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace, settings: Settings) -> None:
    client_ca = None if options.client_ca is None else Path(options.client_ca)
    files = TlsFiles(Path(options.tls_certificate), Path(options.tls_key), client_ca)
    webhook = Webhook(settings, files, poll_seconds=options.tls_poll)
    is_over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, is_over.set)
    early_signals.release()
    await webhook.start(options.host, options.port)
    logging.getLogger("sidecar.kubernetes").info("serving on port %d", webhook.port)
    await is_over.wait()
    await webhook.stop()
