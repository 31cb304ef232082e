"""resilience4j's `application.yml` → a route for each instance.

https://resilience4j.readme.io/docs/circuitbreaker, …/retry, …/bulkhead, …/timeout. Its file knows names and no hosts,
so each route asks for a host that is called like its instance: the first thing to put right. What holds in
resilience4j where nothing is said is written out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from sidecar.config.schema.units import digits
from sidecar.translate.draft import Draft, Keys, Loss
from sidecar.translate.durations import spring_seconds, written
from sidecar.translate.source import Item

ROOTS = ("circuitbreaker", "retry", "timelimiter", "bulkhead", "thread-pool-bulkhead", "ratelimiter")
_JVM_ALONE = frozenset({
    "registerhealthindicator", "eventconsumerbuffersize", "writablestacktraceenabled", "allowhealthindicatortofail",
    "cancelrunningfuture", "automatictransitionfromopentohalfopenenabled", "subscribeforevents",
    "healthindicatorfailurethreshold",
})  # fmt: skip
"""Without a meaning outside of the JVM, or for requests: told in one word."""
_OF_THE_JVM = "means nothing outside of the JVM"
_NOT_HERE = {
    "ratelimiter": "no rate of requests is limited here",
    "thread-pool-bulkhead": "there are no pools of threads here",
}
LONGEST_SECONDS = 86_400.0
"""Of a wait that grows."""
REQUEST_SECONDS = 15.0
"""The sidecar's `timeouts.request` where nothing is said."""


def is_one(document: Item) -> bool:
    """Whether the document has anything of resilience4j."""
    return any(key.partition(".")[0] == "resilience4j" for key, _ in document.pairs())


def translate(document: Item, draft: Draft) -> None:
    """One document of Spring's file."""
    document = document.nested("resilience4j")
    root = document.get("resilience4j")
    for key, item in document.pairs():
        if key != "resilience4j":
            why = (
                "written with brackets, which is not read: nest it"
                if key.startswith("resilience4j.")
                else "not resilience4j's"
            )
            draft.lose(item, why, reach=False)
    if root is None:
        return
    parts = {one: part for key, part in root.pairs() if (one := _word(key)) in map(_word, ROOTS)}
    for key, part in root.pairs():
        if _word(key) not in parts:
            is_order = _word(key).endswith("aspectorder")
            draft.lose(part, _OF_THE_JVM if is_order else "not known here", reach=False)
    for kind, why in _NOT_HERE.items():
        unused = parts.pop(_word(kind), None)
        if unused is not None:
            draft.lose(unused, why, reach=False)
    sections = {kind: Section(part) for kind, part in parts.items()}
    firsts: dict[str, Item] = {}
    for section in sections.values():
        for name, item in section.firsts.items():
            firsts.setdefault(name, item)
    for name, first in firsts.items():
        of_kind = {kind: one.settings(name) for kind, one in sections.items() if name in one.instances}
        _instance(name, first, of_kind, draft)
    for part in parts.values():
        for left in part.unread():
            is_order = _word(left.path.rpartition(".")[2]).endswith("aspectorder")
            draft.lose(left, _OF_THE_JVM if is_order else "not known here", reach=False)


def _word(key: str) -> str:
    """Spring's relaxed binding: `sliding-window-size` and `slidingWindowSize` are one key."""
    return re.sub(r"[-_]", "", key).lower()


def _instances(part: Item) -> Iterator[tuple[str, Item]]:
    for key in ("instances", "backends"):
        listed = part.get(key)
        if listed is not None:
            yield from listed.pairs()


class Layer:
    """One mapping of settings, each of its keys looked at once: thousands of instances may stand on it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._by_word: dict[str, tuple[str, list[Item]]] = {}
        """By word: the key that was first written so, and all that stands under it."""
        self._jvm_alone: list[Item] = []
        for key, child in item._pairs():
            word = _word(key)
            first, same = self._by_word.setdefault(word, (key, []))
            if key == first:
                same.append(child)
            if word in _JVM_ALONE:
                self._jvm_alone.append(child)

    def get(self, word: str) -> Item | None:
        """What the setting says, which counts as read."""
        _, same = self._by_word.get(word, ("", ()))
        for child in same:
            child.is_taken = True
        return next((child for child in same if not child.is_null), None)

    def jvm_alone(self) -> list[Item]:
        """Keys that mean nothing here and were not told of yet."""
        found, self._jvm_alone = self._jvm_alone, []
        return [child for child in found if not child.is_taken]


class Section:
    """Of one kind, such as `circuitbreaker`: instances, and settings that they share, by name."""

    def __init__(self, part: Item) -> None:
        self.instances: dict[str, Item] = {}
        self.firsts: dict[str, Item] = {}
        """Where each is first written."""
        for name, item in _instances(part):
            self.instances[name] = item
            self.firsts.setdefault(name, item)
        configs = part.get("configs") if self.instances else None
        self._configs = {} if configs is None else {name: Layer(item) for name, item in configs.pairs()}

    def settings(self, name: str) -> Settings:
        found = Layer(self.instances[name])
        base = found.get("baseconfig")
        shared = self._configs.get(base.text() if base is not None else "default")
        return Settings([found] if shared is None else [found, shared])


class Settings:
    """Of one instance, over its `baseConfig`, over `configs.default`."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers

    def get(self, key: str) -> Item | None:
        found = [layer.get(key) for layer in self._layers]
        return next((one for one in found if one is not None), None)

    def number(self, key: str, default: float) -> float:
        item = self.get(key)
        return default if item is None else item.number()

    def whole(self, key: str, default: int) -> int:
        item = self.get(key)
        return default if item is None else item.whole()

    def seconds(self, key: str, default: float) -> float:
        item = self.get(key)
        return default if item is None else spring_seconds(item)

    def anything(self) -> Item:
        """Where the instance, or what it stands on, is written."""
        return self._layers[0].item

    def jvm_alone(self) -> Iterator[Item]:
        """Keys that mean nothing here."""
        for layer in self._layers:
            yield from layer.jvm_alone()


def _instance(name: str, first: Item, of_kind: dict[str, Settings], draft: Draft) -> None:
    """`first`: where it is first written. `of_kind`: what each kind says of it."""
    route = draft.route(name, f"{first.place} instance {name}")
    upstream = draft.upstream(route.name, "", 80, f"{first.place} instance {name}")
    why = f"resilience4j names no host: set hosts, and the endpoints of upstream {upstream.name}"
    draft.note(Loss(first.place, first.path, why, False))
    route.keys |= {"match": {"hosts": [route.name.lower()]}, "upstream": upstream.name}
    times: Keys = {}
    if "timelimiter" in of_kind:
        times["attempt"] = written(of_kind["timelimiter"].seconds("timeoutduration", 1.0))
        if of_kind["timelimiter"].seconds("timeoutduration", 1.0) > REQUEST_SECONDS:
            times["request"] = times["attempt"]
    if times:
        route.keys["timeouts"] = times
    route.keys["retry"] = _retry(of_kind["retry"], draft) if "retry" in of_kind else {"attempts": 0}
    if "circuitbreaker" in of_kind:
        route.keys["circuit_breaker"] = _breaker(of_kind["circuitbreaker"], draft)
    else:
        route.keys["circuit_breaker"] = {"mode": "disabled"}
    if "bulkhead" in of_kind:
        upstream.keys["limits"] = {"max_requests": of_kind["bulkhead"].whole("maxconcurrentcalls", 25)}
        wait = of_kind["bulkhead"].get("maxwaitduration")
        if wait is not None and spring_seconds(wait) > 0:
            draft.lose(
                wait, "nobody waits for a place here: what is over the limit is refused at once", reach=False
            )
    for settings in of_kind.values():
        for item in settings.jvm_alone():
            draft.lose(item, _OF_THE_JVM, reach=False)
    draft.keep(route)


def _retry(settings: Settings, draft: Draft) -> Keys:
    """Three calls in all, 500 ms apart, after any exception."""
    count = settings.whole("maxattempts", 3) - 1
    wait = settings.seconds("waitduration", 0.5)
    longest = wait
    exponential, factor = (
        settings.get("enableexponentialbackoff"),
        settings.number("exponentialbackoffmultiplier", 1.5),
    )
    if exponential is not None and exponential.flag():
        bound = settings.get("exponentialmaxwaitduration")
        longest = spring_seconds(bound) if bound is not None else _grown(wait, factor, count - 1)
    for key in ("retryexceptions", "ignoreexceptions", "retryexceptionpredicate", "resultpredicate"):
        item = settings.get(key)
        if item is not None:
            draft.lose(
                item, "exceptions have no names here: `retry.on` says after what is tried again", reach=False
            )
    return {
        "attempts": min(max(count, 0), 10),
        "on": ["connect_failure", "refused", "reset", "attempt_timeout"],
        "backoff": {"base": written(wait), "max": written(max(longest, wait))},
    }


def _breaker(settings: Settings, draft: Draft) -> Keys:
    """A window and a minimum of 100 calls, 60 s of waiting, ten calls in half-open judged by their rate, no row."""
    kind = settings.get("slidingwindowtype")
    is_count = kind is None or kind.text().upper() != "TIME_BASED"
    size = settings.whole("slidingwindowsize", 100)
    least = settings.whole("minimumnumberofcalls", 100)
    rate, slow_rate = (
        settings.number("failureratethreshold", 50),
        settings.number("slowcallratethreshold", 100),
    )
    wait = settings.seconds("waitdurationinopenstate", 60.0)
    permitted = settings.whole("permittednumberofcallsinhalfopenstate", 10)
    longest = wait
    exponential = settings.get("enableexponentialbackoff")
    if exponential is not None and exponential.flag():
        bound = settings.get("exponentialmaxwaitdurationinopenstate")
        factor = settings.number("exponentialbackoffmultiplier", 1.5)
        longest = spring_seconds(bound) if bound is not None else _grown(wait, factor, 10)
        _say(settings.get("exponentialbackoffmultiplier"), "each wait is twice the last one here", draft)
    needed = permitted - math.ceil(permitted * rate / 100) + 1
    half_open: Keys = {"max_calls": permitted, "successes": max(needed, 1)}
    most = settings.get("maxwaitdurationinhalfopenstate")
    if most is not None and spring_seconds(most) > 0:
        half_open["max_wait"] = written(spring_seconds(most))
    where = settings.get("permittednumberofcallsinhalfopenstate") or kind or settings.anything()
    good = max(needed, 1)
    why = f"of {permitted} calls in half-open the rate decides; here {good} good ones close, and a bad one opens"
    draft.note(Loss(where.place, where.path, why, False))
    for key in ("recordexceptions", "ignoreexceptions", "recordfailurepredicate", "recordresultpredicate",
                "ignoreexceptionpredicate"):  # fmt: skip
        _say(settings.get(key), "exceptions have no names here: `failure_on` says what counts", draft)
    return {
        "sliding_window": {"type": "count", "size": size}
        if is_count
        else {"type": "time", "size": f"{size}s"},
        "minimum_calls": min(least, size) if is_count else least,
        "failure_rate_threshold": f"{digits(rate)}%",
        "consecutive_failures": 0,
        "slow_call_duration": written(settings.seconds("slowcalldurationthreshold", 60.0)),
        "slow_call_rate_threshold": f"{digits(slow_rate)}%",
        "open_for": written(wait),
        "max_open_for": written(max(longest, wait)),
        "half_open": half_open,
    }


def _grown(wait: float, factor: float, times: int) -> float:
    """The last of so many waits, each `factor` times the one before; a day at most."""
    for _ in range(min(times, 100)):
        wait = min(wait * factor, LONGEST_SECONDS)
    return wait


def _say(item: Item | None, why: str, draft: Draft) -> None:
    if item is not None:
        draft.lose(item, why, reach=False)
