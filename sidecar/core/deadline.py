"""How long an exchange may take, and how the next hop is told (SPEC 5.1, 5.2).

Decides the budget from the caller's timeout header fields, the route and what was recovered from the trace,
and writes what is left in the units that the caller used. Budgets are relative, so hops need not agree on the
time; turning one into a deadline on the monotonic clock is the caller's part. Header names are lower-case.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import Final

from sidecar.core.block import Block
from sidecar.core.contract import SLOTTED
from sidecar.core.head_template import HeadTemplate
from sidecar.core.snapshot import DeadlinePolicy, Mode

MIN_SEND_SECONDS: Final = 0.001
"""With less than this left nothing is sent; check it before `timeout_fields` and `with_baggage_deadline`."""
CLOCK_NOISE_SECONDS: Final = 1e-6
"""A deadline less the time it was made from is not quite the timeout it was made of: floats round."""
MAX_OFFSET_SHARE: Final = 0.1
"""Of a budget, that `offset` may take at most."""
MAX_BAGGAGE_BYTES: Final = 8192
"""W3C Baggage 3.3.2: all hops must carry that much, so ours is neither looked for nor added in a longer one."""
MAX_VALUES: Final = 16
"""Of one field that came several times, these many values are read, so that reading never takes long."""

MAX_VALUE_BYTES: Final = 256
"""Of one timeout, without white space around it; the longest that makes sense has half of that."""

EXPECTED_TIMEOUT: Final = b"x-envoy-expected-rq-timeout-ms"
GRPC_TIMEOUT: Final = b"grpc-timeout"
BAGGAGE: Final = b"baggage"

_BAGGAGE_KEY: Final = b"deadline-ms"
# A member of an Enum costs 50 ns to look up, a global 5.
_OFF: Final = Mode.OFF
_OBSERVE: Final = Mode.OBSERVE
_NO_BOUND: Final = math.inf


class Form(Enum):
    """How a header field writes its timeout."""

    MILLISECONDS = "milliseconds"
    """A bare integer."""
    DURATION = "duration"
    """Numbers with units, as Linkerd and Go have them: `500ms`, `1m30s`."""
    GRPC = "grpc"
    """At most 8 digits and one of `H M S m u n`."""
    BAGGAGE = "baggage"
    """The member `deadline-ms` of `baggage`: written by `with_baggage_deadline`."""


IN_MILLISECONDS: Final = frozenset({Form.MILLISECONDS, Form.DURATION})
"""Forms in which a timeout is written as whole milliseconds, with a unit or without."""

_MILLISECONDS: Final = Form.MILLISECONDS
_DURATION: Final = Form.DURATION
_GRPC: Final = Form.GRPC


@dataclass(frozen=True, eq=False, **SLOTTED)
class Carried:
    """A valid timeout header field that the caller itself sent: what it holds has to shrink on the way.

    One for each name and form (`carried_field`), so that a tuple of them is a key that is cheap to look up.
    """

    name: bytes
    form: Form


@lru_cache(maxsize=256)
def carried_field(name: bytes, form: Form) -> Carried:
    """The one that stands for this name, lower-case, in this form."""
    return Carried(name, form)


@dataclass(init=False, **SLOTTED)
class Budget:
    """How long an exchange may take from now, and who said so.

    `take` comes first. Shared between exchanges, so nobody writes to it afterwards. Not frozen, since a frozen one
    takes 0.33 µs to make, this one 0.08.
    """

    seconds: float
    """What acts: never above the route's timeout, 0 when spent. The route's alone unless `mode: enforce`.

    Infinite if nobody set a bound: the next hop is told of none, and nothing is counted.
    """
    source: str
    """`header`, `route` or `trace`: which of them `measured_seconds` came from. Empty if nobody set a bound."""
    is_spent: bool
    """Nothing is left: answer 504 without sending."""
    invalid: int
    """Values of timeout header fields that were ignored because they make no sense."""
    carried: tuple[Carried, ...]
    """To be rewritten for the upstream; empty outside `mode: enforce`, where fields pass as they are."""
    measured_seconds: float
    """What `mode: enforce` acts on: `seconds` there, the difference being the point of `mode: observe`."""

    def take(
        self,
        seconds: float,
        source: str,
        is_spent: bool = False,
        invalid: int = 0,
        carried: tuple[Carried, ...] = (),
        measured_seconds: float = 0.0,
    ) -> Budget:
        """Set what it has. Returns itself: the call of an `__init__` takes 700 instructions more."""
        self.seconds = seconds
        self.source = source
        self.is_spent = is_spent
        self.invalid = invalid
        self.carried = carried
        self.measured_seconds = measured_seconds
        return self


@dataclass(frozen=True, eq=False, **SLOTTED)
class Timeouts:
    """What bounds an exchange by its header, as far as the names of its fields tell."""

    policy: DeadlinePolicy
    names: tuple[bytes, ...]
    """Those of the policy's header fields that are there, in its order."""
    may_bound: bool
    """Whether any of them is there, or a baggage."""
    alone: tuple[Carried, ...]
    """The field, where it is the only one that may bound an exchange and has bare milliseconds; else empty."""


def budget(
    fields: Mapping[bytes, bytes],
    policy: DeadlinePolicy,
    route_seconds: float,
    recovered_seconds: float | None,
    timeouts: Timeouts | None = None,
) -> Budget:
    """Return the smallest of what the caller, the trace and the route allow.

    `route_seconds` is infinite for a route without a timeout. `recovered_seconds` is what is left of the inbound
    exchange that this one descends from (zero or less once it is over), None without one, infinite if nothing
    bounds it. The offset comes off the caller's own figure before `max` caps it: where the cap is far below, the
    caller waits long enough. `timeouts`: what is known of `fields` by their names.
    """
    if policy.mode is _OFF:
        return _route_budget(route_seconds)
    if timeouts is None:
        given, invalid, carried = _read_fields(fields, policy.headers)
    elif (
        timeouts.alone
        and len(value := fields[timeouts.names[0]]) <= _MAX_DIGITS
        and value.isdigit()  # as `_read_fields`, without the call: 1,800 instructions less
    ):
        given, invalid, carried = int(value) / 1000.0, 0, timeouts.alone
    else:
        given, invalid, carried = _read_fields(fields, timeouts.names)
    if recovered_seconds is None and not carried and not invalid:
        return _route_budget(route_seconds)
    seconds, source = route_seconds, "route"
    if recovered_seconds is not None and policy.recover_from_trace:
        allowed = with_margin(recovered_seconds, policy.offset_seconds)
        if allowed <= seconds:
            seconds, source = allowed, "trace"
    if seconds == _NO_BOUND:
        source = ""
    if carried:
        allowed = 0.0
        if given > 0.0:  # as `with_margin`, without the call: 800 instructions less
            offset_seconds, share = policy.offset_seconds, given * MAX_OFFSET_SHARE
            allowed = given - (offset_seconds if offset_seconds < share else share)
        if policy.max_seconds is not None and policy.max_seconds < allowed:
            allowed = policy.max_seconds
        if allowed <= seconds:
            seconds, source = allowed, "header"
    if seconds < 0.0:
        seconds = 0.0
    if policy.mode is _OBSERVE:
        return Budget().take(route_seconds, source, False, invalid, (), seconds)
    found = Budget()  # `take`, without the call
    found.seconds = found.measured_seconds = seconds
    found.source = source
    found.is_spent = seconds <= 0.0
    found.invalid = invalid
    found.carried = carried
    return found


def budget_of(block: Block, policy: DeadlinePolicy, route_seconds: float) -> Budget:
    """The same for a head that is remembered, where no trace bounds it: a fortieth of reading its timeouts anew."""
    known = block.budget
    if known is not None and known[0] is policy and known[1] == route_seconds:
        remembered: Budget = known[2]
        return remembered
    found = budget(block.lookup, policy, route_seconds, None)
    block.budget = policy, route_seconds, found
    return found


def timeouts_of(template: HeadTemplate, policy: DeadlinePolicy) -> Timeouts:
    """Return what `policy` has to look at in the heads of this template; the template keeps it."""
    names = tuple([name for name in policy.headers if name in template.lookup])
    has_baggage = BAGGAGE in template.lookup
    alone: tuple[Carried, ...] = ()
    if len(names) == 1 and not has_baggage:
        known = _KNOWN.get(names[0])
        if known is not None and known.form is _MILLISECONDS:
            alone = (known,)
    found = Timeouts(policy, names, bool(names) or has_baggage, alone)
    template.timeouts = found
    return found


@lru_cache(maxsize=4096)  # One for each timeout in use: 0.1 µs, where making one takes 0.25.
def _route_budget(route_seconds: float) -> Budget:
    source = "" if route_seconds == _NO_BOUND else "route"
    return Budget().take(route_seconds, source, False, 0, (), route_seconds)


def with_margin(seconds: float, offset_seconds: float) -> float:
    """Take the offset off, at most a tenth, so that who is told of the rest answers before who asked gives up.

    `seconds` may be infinite, and stays so.
    """
    if seconds <= 0.0:
        return 0.0
    share = seconds * MAX_OFFSET_SHARE
    return seconds - (offset_seconds if offset_seconds < share else share)


def _read_fields(
    fields: Mapping[bytes, bytes], names: tuple[bytes, ...]
) -> tuple[float, int, tuple[Carried, ...]]:
    """Return the smallest timeout in seconds (infinite without any), how many are invalid, who holds valid ones."""
    smallest = _NO_BOUND
    invalid = 0
    carried: tuple[Carried, ...] = ()
    for name in names:
        if name in fields:
            value = fields[name]
            field = _KNOWN.get(name) or carried_field(name, _form_of_unknown(value))
            seconds: float | None
            if field.form is _MILLISECONDS and len(value) <= _MAX_DIGITS and value.isdigit():
                seconds = int(value) / 1000.0  # as `parse_timeout`, without the call: the usual case
            else:
                seconds = parse_timeout(value, field.form)
            if seconds is None:
                field, seconds, wrong = _read_several(name, value)
                invalid += wrong
            if seconds is not None:
                carried += (field,)
                if seconds < smallest:
                    smallest = seconds
    if BAGGAGE in fields and _BAGGAGE_KEY in fields[BAGGAGE] and len(fields[BAGGAGE]) <= MAX_BAGGAGE_BYTES:
        members = baggage_deadlines(fields[BAGGAGE])
        valid = [seconds for seconds in members if seconds is not None]
        invalid += len(members) - len(valid)
        if valid:
            carried += (_CARRIED_BAGGAGE,)
            smallest = min(smallest, *valid)
    return smallest, invalid, carried


def _read_several(name: bytes, value: bytes) -> tuple[Carried, float | None, int]:
    """Read a field that is not one timeout: it came several times, or makes no sense.

    Fields of one name arrive as one value with commas (RFC 9110 5.3), and no form has a comma of its own. The
    smallest valid timeout counts, as it would between fields of different names.

    Returns:
        The field in the form of that timeout, the seconds (None if none is valid), and how many are invalid.
    """
    smallest: float | None = None
    invalid = 0
    found = carried_field(name, Form.MILLISECONDS)
    for part in _parts(value):
        field = _KNOWN.get(name) or carried_field(name, _form_of_unknown(part))
        seconds = parse_timeout(part, field.form)
        if seconds is None:
            invalid += 1
        elif smallest is None or seconds < smallest:
            found, smallest = field, seconds
    return found, smallest, invalid


def _parts(value: bytes) -> list[bytes]:
    return [part.strip(b" \t") for part in value.split(b",", MAX_VALUES)[:MAX_VALUES]]


_CARRIED_BAGGAGE: Final = carried_field(BAGGAGE, Form.BAGGAGE)
_KNOWN: Final = {
    field.name: field
    for field in (
        carried_field(GRPC_TIMEOUT, Form.GRPC),
        carried_field(EXPECTED_TIMEOUT, Form.MILLISECONDS),
        carried_field(b"x-envoy-upstream-rq-timeout-ms", Form.MILLISECONDS),
        carried_field(b"x-request-timeout-ms", Form.MILLISECONDS),
        carried_field(b"l5d-timeout", Form.DURATION),
    )
}


def _form_of_unknown(value: bytes) -> Form:
    """A name that only this configuration knows may hold an integer (milliseconds) or a duration."""
    if len(value) > MAX_VALUE_BYTES:
        return Form.MILLISECONDS
    return Form.MILLISECONDS if _INTEGER(value) else Form.DURATION


_MAX_DIGITS: Final = 18
"""They hold every 64-bit number of milliseconds; more is noise."""
# A minus sign is in no grammar, but is what a caller writes whose time is up: spent, not invalid (SPEC 5.1).
_INTEGER: Final = re.compile(rb"[ \t]*(-?[0-9]{1,18})[ \t]*").fullmatch
_GRPC_VALUE: Final = re.compile(rb"[ \t]*(-?[0-9]{1,8})([HMSmun])[ \t]*").fullmatch
_DURATION_VALUE: Final = re.compile(
    rb"[ \t]*(-?)((?:[0-9]{1,18}(?:\.[0-9]{1,9})?(?:d|h|ms|m|s|us|\xc2\xb5s|ns)){1,6})[ \t]*"
).fullmatch
_DURATION_PARTS: Final = re.compile(rb"([0-9.]+)([a-z\xc2\xb5]+)").findall
_LINKERD_ZERO: Final = re.compile(rb"[ \t]*-?0+[ \t]*").fullmatch

_GRPC_MAX: Final = 99_999_999
_GRPC_UNITS: Final = ((1e9, b"n"), (1e6, b"u"), (1e3, b"m"), (1.0, b"S"), (1 / 60.0, b"M"))
_GRPC_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DURATION_SECONDS: Final = {
    b"d": 86400.0,
    b"h": 3600.0,
    b"m": 60.0,
    b"s": 1.0,
    b"ms": 1e-3,
    b"us": 1e-6,
    b"\xc2\xb5s": 1e-6,
    b"ns": 1e-9,
}


def parse_timeout(value: bytes, form: Form) -> float | None:
    """Return the seconds that `value` stands for, None if it is invalid; zero and less are valid (and spent).

    gRPC: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Envoy's fields are integers, and a
    zero in them is not "no timeout" here. Linkerd's take a number with a unit, and 0 without one.
    """
    if len(value) > MAX_VALUE_BYTES:
        return None
    if form is _MILLISECONDS:
        if len(value) <= _MAX_DIGITS and value.isdigit():  # Saves 0.3 µs of a regex in the usual case.
            return int(value) / 1000.0
        match = _INTEGER(value)
        return int(match[1]) / 1000.0 if match is not None else None
    if form is _DURATION:
        return _parse_duration(value)
    match = _GRPC_VALUE(value)
    return int(match[1]) * _GRPC_SECONDS[match[2]] if match is not None else None


def _parse_duration(value: bytes) -> float | None:
    match = _DURATION_VALUE(value)
    if match is None:
        return 0.0 if _LINKERD_ZERO(value) else None
    seconds = sum(float(number) * _DURATION_SECONDS[unit] for number, unit in _DURATION_PARTS(match[2]))
    return -seconds if match[1] else seconds


def timeout_fields(
    carried: tuple[Carried, ...], seconds_left: float, *, is_grpc: bool
) -> list[tuple[bytes, bytes]]:
    """Return the header fields that tell the upstream how long it has; they replace all of the same names.

    `seconds_left` is at least `MIN_SEND_SECONDS`. Each figure is rounded down, so nobody below thinks to have
    more than there is. `x-envoy-expected-rq-timeout-ms` goes with every bound, `grpc-timeout` for a gRPC call, and
    each carried field but `baggage`. Without a bound (infinite) none goes: no number says "for ever" in any of them.
    """
    left = whole_milliseconds(seconds_left)
    if left is None:
        return []
    milliseconds = b"%d" % left
    fields = [(EXPECTED_TIMEOUT, milliseconds)]
    if is_grpc:
        fields.append((GRPC_TIMEOUT, grpc_timeout(seconds_left)))
    for field in carried:
        name, form = field.name, field.form
        if form is _MILLISECONDS:
            if name != EXPECTED_TIMEOUT:
                fields.append((name, milliseconds))
        elif form is _DURATION:
            fields.append((name, milliseconds + b"ms"))
        elif form is _GRPC and not is_grpc:
            fields.append((name, grpc_timeout(seconds_left)))
    return fields


def whole_milliseconds(seconds_left: float) -> int | None:
    """Return what the next hop is told of, rounded down; None without a bound (infinite), which no field can say."""
    return None if seconds_left == _NO_BOUND else int(seconds_left * 1000.0)


def grpc_timeout(seconds: float) -> bytes:
    """Return finite `seconds` as `grpc-timeout`: rounded down, in the finest unit that its eight digits allow."""
    if 0.1 <= seconds < 99.0:  # as below, where microseconds are the finest that fit
        return b"%du" % int(seconds * 1e6)
    for per_second, unit in _GRPC_UNITS:
        number = int(seconds * per_second)
        if number <= _GRPC_MAX:
            return b"%d%b" % (number, unit)
    return b"%dH" % min(int(seconds / 3600.0), _GRPC_MAX)


_DEADLINE_MEMBER: Final = re.compile(
    # W3C Baggage 3.3.1: `key = value;properties` between commas, none of which is ever quoted.
    rb"(\A|,)[ \t]*deadline-ms[ \t]*=([^,;]*)[^,]*"
)


def baggage_deadlines(value: bytes) -> list[float | None]:
    """Return the seconds of each `deadline-ms` member of a `baggage` value, None for an invalid one.

    Only the first `MAX_VALUES` of them are read.
    """
    members = islice(_DEADLINE_MEMBER.finditer(value), MAX_VALUES)
    return [parse_timeout(found[2], _MILLISECONDS) for found in members]


def with_baggage_deadline(value: bytes | None, seconds_left: float) -> bytes:
    """Return `value` with `deadline-ms` set to what is left; all other members stay byte for byte.

    The first such member is replaced where it stands (its properties go), further ones are removed. Without
    one it is added at the end, unless that would make the value longer than every hop has to carry; a longer value
    stays as it is. Without a bound (infinite) nothing is set: `value` goes as it is.
    """
    left = whole_milliseconds(seconds_left)
    if left is None:
        return value or b""
    ours = b"deadline-ms=%d" % left
    if not value or not value.strip(b" \t"):
        return ours
    if len(value) > MAX_BAGGAGE_BYTES:
        return value
    found = _DEADLINE_MEMBER.search(value)
    if found is not None:
        rest = _DEADLINE_MEMBER.sub(b"", value[found.end() :])
        return value[: found.start()] + found[1] + ours + rest
    extended = value + b"," + ours
    return extended if len(extended) <= MAX_BAGGAGE_BYTES else value
