"""Signals that come before a command can handle them."""

from __future__ import annotations

import signal
import threading

import pytest

from sidecar.cli import early_signals


def test_an_interrupt_amid_imports_comes_when_they_are_done() -> None:
    imported = []

    def struck() -> None:
        with early_signals.interrupts_wait():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            imported.append("whole")

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert imported == ["whole"]


def test_who_holds_interrupts_back_for_longer_still_does() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        with early_signals.interrupts_wait():
            pass
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
