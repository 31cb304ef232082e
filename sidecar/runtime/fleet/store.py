"""What a fleet keeps in its Redis: a stream of news, keys with a life, leases, and who is there.

Each method is one round trip with a bound of its own, and raises `StoreFailed` for whatever goes wrong. All keys of
a fleet have one hash tag, so that they are on one node of a cluster and a script may touch several. Times are worked
out by the clock of that one node: no two machines' clocks are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import field
from typing import Final, TypeVar

from sidecar.core.dataclass import dataclass
from sidecar.core.fleet.encoding import MAX_BYTES
from sidecar.core.fleet.keys import fleet_prefix
from sidecar.core.fleet.lending import MAX_SECONDS
from sidecar.core.fleet.messages import PermitAnswer, PermitAsk, PermitReturn
from sidecar.core.snapshot import RedisPolicy
from sidecar.runtime.fleet.failed import Lack, StoreFailed
from sidecar.runtime.fleet.redis_client import CONNECT_SECONDS, TOO_LONG, Opened, open_client

T = TypeVar("T")

ANSWER_SECONDS: Final = 1.0
"""For each answer, beyond the time that it is asked to wait; then the Redis counts as slow."""
MOST_KEPT: Final = 4096
"""Entries of the stream, about: two windows of 10 s of a busy fleet, and 4 MiB where each has 1 KiB."""
STREAM_LIFE_SECONDS: Final = 600
"""After the last of its entries the stream is gone."""
MOST_READ: Final = 512
"""Entries in one answer."""
MOST_READ_BYTES: Final = 1024 * 1024
"""Of the entries in one answer; the last of them may be beyond."""
MOST_AWAITED: Final = 16
"""Entries in an answer that was waited for, whose bytes nobody can bound: a full one has more behind it."""
MAX_STATE_BYTES: Final = 8192
"""Of a state's value; the largest that we write has a name and somebody who asked of 200 characters each."""
MAX_LIFE_DIGITS: Final = 15
"""Of a state's life in milliseconds, as we write it; what has more was written by somebody else."""
BEAT_LIFE_SECONDS: Final = 10
"""So long after its last beat a replica still counts."""

# KEYS: the stream. ARGV: the last id known or "", how far back to begin without one (ms), how many entries, how many
# bytes in all and of one. An id that is later than now comes from another clock, that of a primary which is gone. An
# entry that is too long to be a batch was written by somebody else: it stays in the Redis.
_CATCH_UP: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = tonumber(ARGV[1]:match('^%d+'))
local from = string.format('%d-0', math.max(0, now - ARGV[2]))
if known and known <= now then from = '(' .. ARGV[1] end
local found, size = {}, 0
while #found < tonumber(ARGV[3]) and size < tonumber(ARGV[4]) do
  local entry = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not entry then break end
  local body = ''
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'b' and #entry[2][i + 1] <= tonumber(ARGV[5]) then body = entry[2][i + 1] end
  end
  size = size + #body
  found[#found + 1] = {entry[1], body}
  from = '(' .. entry[1]
end
return {string.format('%d', now), found}
"""

# KEYS: one breaker's permits, by process "number:until:ask" (ms). ARGV: who asks, for how many, how many there are,
# for how long (ms), the number of its ask, the longest time of all (ms): what would last longer was written by
# somebody else, or before the clock went back. The account of `core/fleet/lending.py`, by the clock of the Redis:
# what was sent over a connection that hung may come after what was sent later.
_LEASE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free = tonumber(ARGV[3])
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local number, till, ask = held[i + 1]:match('^(%d+):(%d+):(%d+)$')
  if not till or tonumber(till) <= now or tonumber(till) > now + ARGV[6] then
    redis.call('HDEL', KEYS[1], held[i])
  elseif held[i] ~= ARGV[1] then
    free = free - tonumber(number)
  elseif tonumber(ask) > tonumber(ARGV[5]) then
    return 0
  end
end
local number = math.max(0, math.min(tonumber(ARGV[2]), free))
if number == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%d:%d', number, now + ARGV[4], ARGV[5]))
redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[4]), redis.call('PTTL', KEYS[1])))
return number
"""

# The same key. ARGV: who gives back, its last ask.
_GIVE_BACK: Final = """
local ask = (redis.call('HGET', KEYS[1], ARGV[1]) or ''):match(':(%d+)$')
if ask and tonumber(ask) <= tonumber(ARGV[2]) then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""

# KEYS: who is there. ARGV: who says so, the life of a beat (s). A beat from later than now was written by somebody
# else, or before the clock went back: it would count for ever.
_BEAT: Final = """
local now = redis.call('TIME')[1]
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[2]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""

_REMEDIES: Final = {
    "WRONGTYPE": "a key of {}:* has a value of another kind, delete it",
    "no permissions": "the user needs the rights of deploy/FLEET.md on {}:*",
    "last possible ID": "an id of {}:stream leaves no room for later ones, delete it",
    "invalid start ID": "an id of {}:stream leaves no room for later ones, delete it",
    TOO_LONG: "a key of {}:* holds more than a fleet writes, find who else writes there",
}
"""By a part of what the Redis says."""


@dataclass(frozen=True, slots=True)
class News:
    """One entry of the stream, or one state."""

    id: str
    """Of a state its name."""
    age: float
    """Seconds since it was written, by the clock of the Redis."""
    body: bytes


@dataclass(slots=True)
class Writing:
    """What goes to the Redis at once."""

    news: list[bytes] = field(default_factory=list)
    states: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """By name, with the seconds that it lives."""
    gone: set[str] = field(default_factory=set)
    """Names of states that hold no longer."""
    asks: list[PermitAsk] = field(default_factory=list)
    returns: list[PermitReturn] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.news or self.states or self.gone or self.asks or self.returns)


class Store:
    """One fleet in one Redis. Owned by the part `fleet`."""

    def __init__(self, opened: Opened, base: str) -> None:
        self._opened = opened
        self._client = opened.client
        self._base = base
        self._stream = f"{base}:stream"

    @classmethod
    async def open(cls, policy: RedisPolicy, namespace: str, fleet: str) -> Store:
        """`namespace` and `fleet` may be any text. Nothing is connected yet.

        Raises:
            StoreFailed: there is nothing to connect with.
        """
        base = fleet_prefix(policy.prefix, namespace, f"{{{fleet}}}")
        return cls(await open_client(policy), base)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._opened.close()

    # What is written

    async def write(self, writing: Writing) -> list[PermitAnswer]:
        """All of it in one round trip; the answers to its asks, in their order."""
        pipe = self._client.pipeline(transaction=False)
        for body in writing.news:
            pipe.xadd(self._stream, {"b": body}, maxlen=MOST_KEPT, approximate=True)
        if writing.news:
            pipe.expire(self._stream, STREAM_LIFE_SECONDS)
        for name, (value, life) in writing.states.items():
            milliseconds = max(1, round(life * 1000))
            pipe.set(self._state(name), b"%d:%s" % (milliseconds, value), px=milliseconds)
        for name in writing.gone:
            pipe.delete(self._state(name))
        for returned in writing.returns:
            given = returned.process, str(returned.number_of_ask)
            pipe.eval(_GIVE_BACK, 1, self._permits(returned.breaker), *given)
        for ask in writing.asks:
            milliseconds = max(1, round(min(ask.seconds, MAX_SECONDS) * 1000))
            numbers = ask.number, ask.most, milliseconds, ask.number_of_ask, round(MAX_SECONDS * 1000)
            pipe.eval(_LEASE, 1, self._permits(ask.breaker), ask.process, *map(str, numbers))
        answers = await self._bounded(pipe.execute())
        granted = answers[len(answers) - len(writing.asks) :]
        return [
            PermitAnswer(ask.breaker, ask.process, int(number), ask.number_of_ask)
            for ask, number in zip(writing.asks, granted, strict=True)
        ]

    async def beat(self, member: str, names: Sequence[str] = ()) -> tuple[int, bool]:
        """Say that a replica is there. Returns how many are, and whether one of these states is missing."""
        pipe = self._client.pipeline(transaction=False)
        pipe.eval(_BEAT, 1, f"{self._base}:members", member, str(BEAT_LIFE_SECONDS))
        for name in names:
            pipe.exists(self._state(name))
        count, *found = await self._bounded(pipe.execute())
        return int(count), not all(found)

    # What is read

    async def states(self, names: Sequence[str]) -> list[News]:
        """Those of the states that live, each with its age."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.getrange(self._state(name), 0, MAX_STATE_BYTES)
            pipe.pttl(self._state(name))
        answers = await self._bounded(pipe.execute())
        found = []
        for name, value, left in zip(names, answers[::2], answers[1::2], strict=True):
            life, _, body = value.partition(b":")
            if left > 0 and life.isdigit() and len(life) <= MAX_LIFE_DIGITS and len(value) <= MAX_STATE_BYTES:
                found.append(News(name, max(0.0, (int(life) - left) / 1000), body))
        return found

    async def catch_up(self, last_id: str, seconds: float) -> tuple[list[News], str]:
        """What was written after `last_id`, or without one in the last `seconds`, oldest first, as much as one answer
        holds; and the id to go on with. To be called again until there is nothing."""
        numbers = round(seconds * 1000), MOST_READ, MOST_READ_BYTES, MAX_BYTES
        asked = self._client.eval(_CATCH_UP, 1, self._stream, last_id, *map(str, numbers))
        now, entries = await self._bounded(asked)
        found = [
            News(id_.decode(), max(0.0, (int(now) - int(id_.split(b"-")[0])) / 1000), body)
            for id_, body in entries
        ]
        if found:
            return found, found[-1].id
        before = int(now) - 1  # of the present millisecond there may be more to come
        is_known = last_id and before <= int(last_id.partition("-")[0]) <= int(now)
        return found, last_id if is_known else f"{max(0, before)}-0"

    async def wait(self, last_id: str, seconds: float) -> list[News]:
        """What comes after `last_id`, as soon as there is something; nothing where `seconds` go by without. Behind
        `MOST_AWAITED` of them there may be more."""
        milliseconds = max(1, round(seconds * 1000))
        asked = self._client.xread({self._stream: last_id}, count=MOST_AWAITED, block=milliseconds)
        answer = await self._bounded(asked, seconds)
        # What somebody else has written there has no body, and is no batch either.
        return [
            News(id_.decode(), 0.0, fields.get(b"b", b"")) for _, entries in answer for id_, fields in entries
        ]

    # Inside

    def _state(self, name: str) -> str:
        return f"{self._base}:state:{name}"

    def _permits(self, breaker: str) -> str:
        return f"{self._base}:permits:{breaker}"

    def _remedy(self, told: str) -> str:
        """What to do about an error of the Redis: of a script it does not even say which key is meant."""
        for needle, remedy in _REMEDIES.items():
            if needle in told:
                return f"{remedy.format(self._base)}: "
        return ""

    async def _bounded(self, asked: Awaitable[T], seconds: float = 0.0) -> T:
        """An answer within `seconds` and the time that any answer may take, the first with a connection."""
        from redis import exceptions

        try:
            async with asyncio.timeout(seconds + ANSWER_SECONDS + CONNECT_SECONDS):
                return await asked
        except (TimeoutError, exceptions.TimeoutError):
            raise StoreFailed(Lack.SLOW, "no answer in time") from None
        except exceptions.AuthenticationError as error:
            raise StoreFailed(Lack.PASSWORD, str(error)) from None
        except (exceptions.ConnectionError, OSError) as error:
            raise StoreFailed(_lack_of(error), str(error)) from None
        except Exception as error:
            # Whatever the package raises for an answer that it does not expect: it must not end the process.
            told = f"{self._remedy(str(error))}{type(error).__name__}: {error}"
            is_password = str(error).startswith(("WRONGPASS", "NOAUTH"))
            raise StoreFailed(Lack.PASSWORD if is_password else Lack.REFUSED, told[:300]) from None


def _lack_of(error: Exception) -> Lack:
    """Certificates that do not fit come as connections that broke."""
    return Lack.TLS if "CERTIFICATE" in str(error).upper() or "SSL" in str(error) else Lack.UNREACHABLE
