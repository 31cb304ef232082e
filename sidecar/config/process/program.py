"""The program of the process that loads configurations for another one: `python -m sidecar.runtime.loading`.

A process and not a thread, because reading YAML and checking it holds the interpreter: with 1,000 routes a thread
kept the event loop waiting for 120 ms at a time. Speaks on standard input and output, in frames of a length
(4 bytes, big-endian) and a pickle: a request is (path, environment, most routes); an answer is the pickles of
`pickles.pack`, or a `ConfigError`, each marked by its first byte, and an end mark. Ends with its input, so it never
outlives who started it. Imported by nobody: this and `load` are the megabytes that the asking process does without.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from typing import BinaryIO

from sidecar.config.load.assembly import ConfigError, load_file
from sidecar.config.process.pickles import END, LENGTH_BYTES, PART, PROBLEMS, frame, pack


def main(niceness: int) -> None:
    """`niceness` is added to that of who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group
    os.nice(niceness)
    gc.disable()  # one load makes no cycles worth a pause; the process ends after a while without work
    gc.freeze()  # what was imported is not looked through after each load: 23 ms, where a small load takes 2
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not be taken for an answer
    while request := _read(requests):
        path, environ, most_routes = pickle.loads(request)
        try:
            _answer(path, environ, most_routes, answers)
        except BrokenPipeError:
            os._exit(0)  # who asked was killed meanwhile; what is in the buffer would be tried again
        gc.collect()
        gc.freeze()  # nor what a load has built for those to come


def _answer(path: str, environ: dict[str, str], most_routes: int | None, answers: BinaryIO) -> None:
    try:
        for part in pack(load_file(path, environ, most_routes).snapshot):
            answers.write(frame(PART + part))
    except ConfigError as error:
        answers.write(frame(PROBLEMS + pickle.dumps(error, pickle.HIGHEST_PROTOCOL)))
    answers.write(frame(END))
    answers.flush()


def _read(requests: BinaryIO) -> bytes:
    """The next request; empty when there is none any more."""
    length = requests.read(LENGTH_BYTES)
    return requests.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else b""
