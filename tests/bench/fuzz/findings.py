"""What went wrong: each kind once, with the input that showed it first."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path
from typing import Final

from tests.bench.fuzz.targets import Feed, Target

MAX_KINDS: Final = 50
"""After so many different ones of one target it is ended: there is enough to mend."""


class Enough(Exception):
    """There are `MAX_KINDS` of them."""


class Findings:
    """Of one target."""

    def __init__(self, target: Target, folder: Path | None) -> None:
        """Inputs are written to `folder`, if there is one."""
        self.target = target
        self.folder = folder
        self.inputs: dict[str, bytes] = {}
        """By kind: where it was raised, and what."""
        self.count = 0
        """Inputs that were fed."""

    def guarded(self) -> Feed:
        """The target's function; what it raises is kept and does not end the run."""
        feed = self.target.feed

        def guarded(data: bytes) -> None:
            self.count += 1
            try:
                feed(data)
            except Exception as error:
                self._keep(data, error)

        return guarded

    def _keep(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
        # What `same` says is the same for each input; what other errors say often has the input in it.
        first = (
            str(error).partition("\n")[0].partition("{")[0][:60] if isinstance(error, AssertionError) else ""
        )
        kind = f"{type(error).__name__}: {first} at {places}"
        if kind in self.inputs:
            return
        self.inputs[kind] = data
        where = ""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{self.target.name}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(
                "".join(traceback.format_exception(error)), "utf-8", "replace"
            )
            where = f"\n    input: {path}"
        print(f"  found in {self.target.name}: {kind}\n    {data[:300]!a}{where}", flush=True)
        if len(self.inputs) >= MAX_KINDS:
            raise Enough(f"{MAX_KINDS} different findings in {self.target.name}: mend them first")
