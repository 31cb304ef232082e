"""Results → Markdown tables and JSON. Cells are medians over rounds, with the smallest and largest."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.load import Scenario
from tests.bench.rounds import Life, Plan, Results, Sample
from tests.bench.targets import DIRECT

BASE = "envoy"

Values = dict[str, dict[int, float]]  # by target, by round


@dataclass(frozen=True, slots=True)
class Column:
    """A title, the values and how they are written."""

    title: str
    values: Values
    form: str


def markdown(plan: Plan, results: Results, environment: dict[str, str]) -> str:
    """Tables of CPU time, throughput, latency and life, then where and how they were taken."""
    flat = [scenario for scenario in plan.scenarios if not scenario.paced]
    paced = [scenario for scenario in plan.scenarios if scenario.paced]
    proxies = [target for target in plan.targets if target != DIRECT]
    cpu, rate, latency = [], [], []
    for scenario in flat:
        spent = by_target(results, scenario, lambda sample: sample.cpu_us)
        cpu += [Column(scenario.title, spent, ".1f"), Column(f"× {BASE}", ratios(spent), ".2f")]
        rate.append(
            Column(scenario.title, by_target(results, scenario, lambda s: s.requests_per_second), ".0f")
        )
    for scenario in paced:
        p50 = by_target(results, scenario, lambda sample: sample.p50_us)
        p99 = by_target(results, scenario, lambda sample: sample.p99_us)
        latency += [Column(f"{scenario.title}: p50", p50, ".0f"), Column("added p50", added(p50), ".0f")]
        latency += [Column("p99", p99, ".0f"), Column("added p99", added(p99), ".0f")]
    life = [
        Column("RSS MiB idle", lives(results, lambda life: life.idle_mib), ".1f"),
        Column("RSS MiB after load", lives(results, lambda life: life.loaded_mib), ".1f"),
        Column("start to ready, ms", lives(results, lambda life: life.ready_ms), ".0f"),
    ]
    tables = [
        table("CPU µs a request", proxies, cpu),
        table("Requests a second", plan.targets, rate),
        table("Latency, µs", plan.targets, latency),
        table("Memory and start", proxies, life),
    ]
    return "\n\n".join([text for text in tables if text] + [notes(plan, results, environment)])


def plain(plan: Plan, results: Results, environment: dict[str, str]) -> dict[str, Any]:
    """Everything, for a JSON file."""
    return {"environment": environment, "plan": asdict(plan), "results": asdict(results)}


def by_target(results: Results, scenario: Scenario, value: Callable[[Sample], float]) -> Values:
    """A value of each sample of a scenario, by target and round."""
    found: Values = {}
    for sample in results.samples:
        if sample.scenario == scenario.name:
            found.setdefault(sample.target, {})[sample.round] = value(sample)
    return found


def lives(results: Results, value: Callable[[Life], float]) -> Values:
    """A value of each start, by target and round."""
    found: Values = {}
    for life in results.lives:
        found.setdefault(life.target, {})[life.round] = value(life)
    return found


def ratios(values: Values) -> Values:
    """Each value by that of Envoy in the same round."""
    return _against(values, BASE, lambda value, base: value / base)


def added(values: Values) -> Values:
    """Each value less that without a proxy in the same round."""
    differences = _against(values, DIRECT, lambda value, base: value - base)
    return {target: rounds for target, rounds in differences.items() if target != DIRECT}


def _against(values: Values, base: str, combine: Callable[[float, float], float]) -> Values:
    bases = values.get(base, {})
    return {
        target: {number: combine(value, bases[number]) for number, value in rounds.items() if number in bases}
        for target, rounds in values.items()
    }


def table(corner: str, targets: list[str], columns: list[Column]) -> str:
    """A Markdown table; empty if it would have no cell."""
    if not targets or not columns:
        return ""
    lines = [
        f"| {corner} | {' | '.join(column.title for column in columns)} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for target in targets:
        cells = [spread(list(column.values.get(target, {}).values()), column.form) for column in columns]
        lines.append(f"| {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], form: str) -> str:
    """Median (smallest–largest); "–" without values."""
    if not values:
        return "–"
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else middle


def notes(plan: Plan, results: Results, environment: dict[str, str]) -> str:
    """What the tables cannot show: how they were taken, what was thrown away, and errors."""
    lines = [f"{name}: {value}" for name, value in environment.items()]
    lines.append(
        f"rounds: {plan.rounds} of {plan.seconds} s; median (smallest–largest); "
        f"{results.discarded} samples thrown away because other work took over {plan.noise:.0%} of a core"
    )
    lines += [f"no undisturbed try: {label}" for label in results.given_up]
    lines += [f"error: {error}" for error in results.errors]
    return "\n".join(f"- {line}" for line in lines)
