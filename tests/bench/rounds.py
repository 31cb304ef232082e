"""The measuring: rounds over all targets, each sample's CPU time, load and memory, and which rounds count."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Load, LoadError, Scenario, run_load
from tests.bench.machine import Cores, CoreWatch, await_quiet, cpu_seconds, rss_mib, tree
from tests.bench.targets import DIRECT, TARGETS, Running, started

WARM_UP_SECONDS = 1.0


class DisturbedError(Exception):
    """Other work took more of a core than is allowed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured. `noise` is the largest share of a core that other work may take."""

    targets: list[str]
    scenarios: list[Scenario]
    rounds: int
    seconds: float
    noise: float
    retries: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One target, one scenario, one round."""

    round: int
    target: str
    scenario: str
    requests: int
    requests_per_second: float
    cpu_us: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Life:
    """One start of a target: from its command to its readiness, and its memory before and after all load."""

    round: int
    target: str
    ready_ms: float
    idle_mib: float
    loaded_mib: float


@dataclass(slots=True)
class Results:
    """All that was seen. `discarded` counts disturbed tries; `given_up` names samples that never came."""

    samples: list[Sample] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    discarded: int = 0
    given_up: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs a plan against one upstream; the results grow as it goes."""

    plan: Plan
    cores: Cores
    upstream_pids: list[int]
    upstream_port: int
    grpc_port: int
    """Of the upstream of gRPC scenarios; the same where there are none."""
    directory: Path
    say: Callable[[str], None]
    results: Results = field(default_factory=Results)

    def run(self) -> None:
        """All rounds. Each starts with another target, so that none always follows the same one.

        Raises:
            TargetError: a target cannot be measured at all.
        """
        for number in range(self.plan.rounds):
            shift = number % len(self.plan.targets)
            for name in self.plan.targets[shift:] + self.plan.targets[:shift]:
                self._visit(number, name)

    def _visit(self, number: int, name: str) -> None:
        """Start a target, measure its scenarios one after the other, and end it."""
        with self._target(name) as running:
            idle_mib = rss_mib(running.pids())
            for scenario in self.plan.scenarios:
                self._sample(number, name, scenario, running)
            loaded_mib = rss_mib(running.pids())
        if running.process:
            self.results.lives.append(Life(number, name, running.ready_seconds * 1e3, idle_mib, loaded_mib))

    @contextmanager
    def _target(self, name: str) -> Iterator[Running]:
        if name == DIRECT:
            yield Running(self.upstream_port, grpc_port=self.grpc_port)
            return
        target = TARGETS[name]
        core, upstream, directory = self.cores.proxy, self.upstream_port, self.directory
        with started(
            target, core=core, upstream_port=upstream, grpc_port=self.grpc_port, directory=directory
        ) as running:
            yield running

    def _sample(self, number: int, name: str, scenario: Scenario, running: Running) -> None:
        """One sample, tried again while other work disturbs it; an error is kept and not tried again."""
        label = f"round {number + 1}, {name}, {scenario.title}"
        try:
            run_load(scenario, port=running.port_of(scenario), core=self.cores.load, seconds=WARM_UP_SECONDS)
            for _ in range(1 + self.plan.retries):
                try:
                    load, cpu_us = self._measure(scenario, running)
                except DisturbedError as error:
                    self.results.discarded += 1
                    self.say(f"{label}: thrown away, {error}")
                    await_quiet(self.cores, share=self.plan.noise)
                    continue
                rates = (load.requests / load.seconds, cpu_us, load.p50_us, load.p99_us)
                self.results.samples.append(Sample(number, name, scenario.name, load.requests, *rates))
                self.say(f"{label}: {_told(self.results.samples[-1], scenario)}")
                return
            self.results.given_up.append(label)
        except LoadError as error:
            self.results.errors.append(f"{label}: {error}")
            self.say(self.results.errors[-1])

    def _measure(self, scenario: Scenario, running: Running) -> tuple[Load, float]:
        """The load and the proxy's CPU µs for each of its requests.

        Raises:
            DisturbedError: other work took a core.
            LoadError: the load had an error, or a process of the proxy came or went.
        """
        pids = running.pids()
        # What belongs on the load core; load generators are this process's reaped children.
        loaders = [*(pid for root in self.upstream_pids for pid in tree(root)), os.getpid()]
        watches = [(CoreWatch(self.cores.load), cpu_seconds(loaders))]
        if pids:
            watches.append((CoreWatch(self.cores.proxy), cpu_seconds(pids)))
        load = run_load(
            scenario, port=running.port_of(scenario), core=self.cores.load, seconds=self.plan.seconds
        )
        if running.pids() != pids:
            raise LoadError("a process of the target came or went during the round")
        used = [cpu_seconds(loaders), cpu_seconds(pids)]
        for (watch, before), after in zip(watches, used, strict=False):
            other = (watch.busy_seconds() - (after - before)) / watch.elapsed_seconds()
            if other > self.plan.noise:
                raise DisturbedError(f"other work took {other:.0%} of core {watch.core}")
        spent = used[1] - watches[1][1] if pids else 0.0
        return load, spent / load.requests * 1e6


def _told(sample: Sample, scenario: Scenario) -> str:
    """A sample in a line of progress."""
    if scenario.paced:
        return f"p50 {sample.p50_us:.0f} µs, p99 {sample.p99_us:.0f} µs"
    return f"{sample.cpu_us:.1f} CPU µs a request, {sample.requests_per_second:.0f} requests a second"
