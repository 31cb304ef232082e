"""A short run of the fuzzer (`tests/bench/fuzz`): the kept corpus and some mutations of it, the same each time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sidecar.core import plain
from sidecar.core.chunked import ChunkedBody
from sidecar.upstream.cluster import Cluster
from tests.bench.fuzz import corpus, engines, memories, mutations
from tests.bench.fuzz.findings import MAX_KINDS, Enough, Findings
from tests.bench.fuzz.pieces import BETWEEN
from tests.bench.fuzz.seeds import PLAIN_REQUESTS
from tests.bench.fuzz.targets import Target, all_targets

TARGETS = all_targets()
MUTATIONS = 40
"""Of each target, beside its corpus: `python -m tests.bench.fuzz` makes millions."""


def findings_of(target: Target, count: int, folder: Path | None = None) -> list[str]:
    """What `count` inputs find, the kept ones first."""
    findings = Findings(target, folder)
    feed = findings.guarded()
    with memories.small():
        for data in islice(mutations.inputs(target, 7), count):
            feed(data)
    return list(findings.inputs)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found_in_what_is_kept_and_in_some_mutations_of_it(name: str) -> None:
    target = TARGETS[name]
    findings = Findings(target, None)
    feed = findings.guarded()
    with memories.small():
        for data in corpus.kept(name):
            feed(data)
    assert findings.inputs == {}
    known = len(list(corpus.beginnings(target)))
    with memories.small():
        for data in islice(mutations.inputs(target, 7), known, known + MUTATIONS):
            feed(data)
    assert findings.inputs == {}
    assert findings.count >= MUTATIONS


@pytest.mark.plain
def test_a_memory_that_changes_what_is_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(line: bytes) -> Any:
        name, _, value = line.partition(b":")
        key = plain._varying.get(name)
        return None if key is None else (key, line + b"\r\n", value.strip())

    monkeypatch.setattr(plain, "_read_varying", lenient)
    again = BETWEEN.join((PLAIN_REQUESTS[1],) * 2)
    target = replace(TARGETS["request_heads"], name="planted", seeds=lambda: [again])
    assert findings_of(target, 3000) != []


@pytest.mark.plain
def test_a_template_that_changes_what_is_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_in = plain._fill_in

    def lenient(template: Any, text: bytes) -> Any:
        filled = fill_in(template, text)
        if filled is not None:
            fields, behind = filled
            fields[:] = [(key, line, value) for key, line, value in fields if value != b"b"]
            filled = fields, behind
        return filled

    monkeypatch.setattr(plain, "_fill_in", lenient)
    again = BETWEEN.join((PLAIN_REQUESTS[1],) * 3)
    target = replace(TARGETS["request_heads"], name="planted", seeds=lambda: [again])
    assert findings_of(target, 3) != []


@pytest.mark.plain
def test_what_is_remembered_is_forgotten_for_each_input() -> None:
    target = TARGETS["request_heads"]
    with memories.small():
        for data in islice(mutations.inputs(target, 7), 300):
            target.feed(data)
            memories.forget()
            memories.cold()
            for module in (plain, memories.COLD):
                kept = (module._known, module._blocks, module._heads, module._templates, module._misses)
                assert not any(kept)
                assert not module._was_filled


@pytest.mark.plain
def test_a_reader_that_sees_its_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: ChunkedBody, line: bytes) -> None:
        self._part = line[-2:]

    monkeypatch.setattr(ChunkedBody, "_keep_size_line", forgetful)
    assert findings_of(TARGETS["chunked"], 300) != []


@pytest.mark.plain
def test_a_place_that_is_not_given_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "connection_closed", lambda self: None)
    assert findings_of(TARGETS["proxy"], 300) != []


def test_a_finding_is_told_once_with_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def feed(data: bytes) -> None:
        raise KeyError(data)

    findings = Findings(Target("bad", feed, lambda: [b"first"]), tmp_path)
    guarded = findings.guarded()
    for data in (b"first", b"second"):
        guarded(data)
    assert list(findings.inputs.values()) == [b"first"]
    (written,) = [path for path in tmp_path.iterdir() if path.suffix != ".txt"]
    assert written.read_bytes() == b"first"
    assert "KeyError" in written.with_suffix(".txt").read_text()
    assert capsys.readouterr().out.count("found in bad") == 1


def test_a_run_ends_when_it_has_found_enough() -> None:
    def feed(data: bytes) -> None:
        raise AssertionError(str(len(data)))

    target = Target("bad", feed, lambda: [b"x" * size for size in range(1, MAX_KINDS + 5)])
    findings = Findings(target, None)
    guarded = findings.guarded()
    for data in list(target.seeds())[: MAX_KINDS - 1]:
        guarded(data)
    with pytest.raises(Enough, match="mend them first"):
        guarded(b"x" * MAX_KINDS)
    run = engines.mutate(target, 10_000, 60.0, 1, None)
    assert (run.inputs, run.found) == (MAX_KINDS, MAX_KINDS)


def test_a_run_ends_after_its_inputs_or_its_time() -> None:
    target = TARGETS["baggage"]
    assert engines.mutate(target, 70, 60.0, 1, None).inputs == 70
    assert engines.mutate(target, 10**9, 0.0, 1, None).inputs == 0


def test_mutations_are_the_same_for_a_seed_and_within_the_targets_size() -> None:
    target = TARGETS["request_heads"]
    first, again, other = (list(islice(mutations.inputs(target, seed), 2500)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert max(map(len, first)) <= target.max_bytes


def test_what_is_kept_is_read_again_and_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    data = [b"", b"\0\r\n'\"\\", bytes(range(256))]
    assert corpus.keep("a", [*data, data[0]]) == len(data)
    assert corpus.kept("a") == sorted(data, key=len)
    assert corpus.kept("b") == []
    many = [b"%05d" % number + b"x" * 1000 for number in range(100)]
    assert corpus.keep("a", many) < len(many)
    assert (tmp_path / "a.txt").stat().st_size <= corpus.MAX_KEPT_BYTES


def test_no_loop_is_told_to_be_running_behind_an_input() -> None:
    findings_of(TARGETS["proxy"], 3)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_each_input_begins_with_nothing_remembered() -> None:
    plain.read_request(b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n")
    assert plain._known
    memories.forget()
    assert not plain._known
    assert memories.cold()._known == {}
