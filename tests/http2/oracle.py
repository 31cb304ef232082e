"""nghttp2 (by `ngh2`) and the codec side by side: the same frames to both, and what each makes of them.

Both say the same settings. What they may differ in is listed in `is_known_difference`, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import ngh2

from sidecar.core.plain import Field
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import (
    ConnectionFailed,
    DataReceived,
    GoawayReceived,
    Http2Event,
    InterimReceived,
    PingAcknowledged,
    RequestMalformed,
    RequestReceived,
    RequestTooLarge,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from tests.http2.guided import GuidedFrames
from tests.http2.wire import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    frames_of,
    setting,
)

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/"))
POST = ((b":method", b"POST"), *GET[1:])
ASKED = (1, 3, 5, 7, 9, 11)

Told = tuple[object, ...]


@dataclass
class Verdict:
    """What came of the frames of one step."""

    told: list[Told] = field(default_factory=list)
    resets: set[int] = field(default_factory=set)
    """Streams that were reset for what their peer sent."""
    is_over: bool = False
    """The connection has failed."""
    detail: str = ""
    """Why, as the codec says it."""

    @property
    def is_bad(self) -> bool:
        return self.is_over or bool(self.resets)


class Ours:
    def __init__(self, role: Role) -> None:
        self.connection = Connection(role)
        self.connection.receive((PREFACE if role is Role.SERVER else b"") + BEGIN, 0.0)
        if role is Role.CLIENT:
            for stream_id in ASKED:
                self.connection.open_stream(
                    GET if stream_id % 4 == 1 else POST, (), is_end=stream_id % 4 == 1
                )
        self.connection.take()

    def step(self, data: bytes) -> Verdict:
        verdict = Verdict()
        for event in self.connection.receive(data, 0.0):
            if isinstance(event, ConnectionFailed):
                verdict.is_over = True
                verdict.detail = event.detail
            elif isinstance(event, RequestTooLarge):
                verdict.detail = event.detail
                self.connection.reset(event.stream, ErrorCode.ENHANCE_YOUR_CALM)
                self.connection.release(event.stream)
            elif isinstance(event, RequestMalformed) or (
                isinstance(event, StreamReset) and not event.is_by_peer
            ):
                verdict.detail = event.detail
            else:
                told = describe(event)
                if told:
                    verdict.told.append(told)
        for one in frames_of(self.connection.take()):
            if one.kind == RST_STREAM:
                verdict.resets.add(one.stream_id)
                verdict.detail = verdict.detail or STRAY
        return verdict


STRAY = "DATA for a stream that its sender has ended"
"""What is reset without an event had no stream any more."""
BEGIN = setting() + frame(SETTINGS, ACK, 0)


def describe(event: Http2Event) -> Told:
    if isinstance(event, RequestReceived):
        return "head", event.stream.stream_id, request_fields(event), event.is_end
    if isinstance(event, ResponseReceived):
        fields = {(b":status", b"%d" % event.status)} | pairs(event.fields)
        return "head", event.stream.stream_id, frozenset(fields), event.is_end
    if isinstance(event, InterimReceived):
        fields = {(b":status", b"%d" % event.status), *pairs(event.fields)}
        return "interim", event.stream.stream_id, frozenset(fields)
    if isinstance(event, DataReceived):
        return "data", event.stream.stream_id, len(event.data), event.is_end
    if isinstance(event, TrailersReceived):
        return "trailers", event.stream.stream_id, frozenset(pairs(event.fields))
    if isinstance(event, StreamReset):
        return "reset", event.stream.stream_id, event.code
    if isinstance(event, GoawayReceived):
        return "goaway", event.last_stream_id, event.code
    if isinstance(event, PingAcknowledged):
        return "ping", event.payload
    return ()


def request_fields(event: RequestReceived) -> frozenset[tuple[bytes, bytes]]:
    named = {
        b":method": event.method,
        b":scheme": event.scheme,
        b":path": event.path,
        b":protocol": event.protocol,
        b":authority": event.authority,
    }
    return frozenset({(key, value) for key, value in named.items() if value} | pairs(event.fields))


def pairs(fields: Sequence[Field]) -> set[tuple[bytes, bytes]]:
    return {(key, value) for key, _, value in fields}


class Theirs:
    def __init__(self, role: Role) -> None:
        is_server = role is Role.SERVER
        config = ngh2.Configuration(auto_window_update=False)
        self.connection = ngh2.Connection(ngh2.Role.SERVER if is_server else ngh2.Role.CLIENT, config)
        self.connection.initiate_connection(
            {4: 262_144, 6: 65_536, **({3: 1000, 8: 1} if is_server else {2: 0})}
        )
        self.connection.set_local_window_size(1024 * 1024)
        self.connection.data_to_send()
        self.connection.receive_data((PREFACE if is_server else b"") + BEGIN)
        self.connection.events()
        if not is_server:
            for stream_id in ASKED:
                fields = list(GET if stream_id % 4 == 1 else POST)
                self.connection.send_request(fields, end_stream=stream_id % 4 == 1)
        self.connection.data_to_send()
        self.live = set() if is_server else set(ASKED)
        """RST_STREAM for other streams, which are over or passed over, is told all the same."""

    def step(self, data: bytes) -> Verdict:
        verdict = Verdict()
        try:
            self.connection.receive_data(data)
            events = self.connection.events()
            written = self.connection.data_to_send()
        except ngh2.NGH2Error:
            verdict.is_over = True
            return verdict
        for event in events:
            told = describe_theirs(event)
            if told and (told[0] != "reset" or told[1] in self.live):
                verdict.told.append(told)
            if isinstance(event, ngh2.RequestReceived):
                self.live.add(event.stream_id)
            elif isinstance(event, ngh2.StreamClosed):
                self.live.discard(event.stream_id)
        for one in frames_of(written):
            if one.kind == GOAWAY:
                verdict.is_over = True
            elif one.kind == RST_STREAM:
                verdict.resets.add(one.stream_id)
        return verdict


def describe_theirs(event: object) -> Told:
    if isinstance(event, ngh2.RequestReceived):
        return "head", event.stream_id, joined(event.headers), event.end_stream
    if isinstance(event, ngh2.ResponseReceived):
        return "head", event.stream_id, frozenset(joined(event.headers)), event.end_stream
    if isinstance(event, ngh2.InformationalResponseReceived):
        return "interim", event.stream_id, frozenset(joined(event.headers))
    if isinstance(event, ngh2.DataReceived):
        return "data", event.stream_id, len(event.data), event.end_stream
    if isinstance(event, ngh2.TrailersReceived):
        return "trailers", event.stream_id, frozenset(plain(event.headers))
    if isinstance(event, ngh2.StreamReset):
        return "reset", event.stream_id, event.error_code
    if isinstance(event, ngh2.GoAwayReceived):
        return "goaway", event.last_stream_id, event.error_code
    if isinstance(event, ngh2.PingAcknowledged):
        return "ping", event.opaque_data
    return ()


def plain(headers: tuple[ngh2.Header, ...]) -> list[tuple[bytes, bytes]]:
    return [(one.name, one.value) if hasattr(one, "name") else (one[0], one[1]) for one in headers]


def joined(headers: tuple[ngh2.Header, ...]) -> frozenset[tuple[bytes, bytes]]:
    """Cookies joined, `host` as `:authority`: as the codec tells them."""
    fields = plain(headers)
    crumbs = [value for key, value in fields if key == b"cookie"]
    found = {(key, value) for key, value in fields if key != b"cookie"}
    if crumbs:
        found.add((b"cookie", b"; ".join(crumbs)))
    return frozenset(found)


STRICTER = {
    "a stream that depends on itself": "RFC 7540 5.3.1; nghttp2 ignores PRIORITY",
    "PRIORITY for stream 0": "the same",
    "the size of PRIORITY is not 5": "the same",
    ":authority and host differ": "RFC 9113 8.3.1 says SHOULD",
    "the value of :path is malformed": "RFC 3986: visible ASCII, no fragment; nghttp2 takes bytes above",
    ":path does not begin with a slash": "RFC 9113 8.3.1 asks that of http and https, as nghttp2 does; by another "
    "scheme it could not be passed on in origin form",
    "te in an answer": "RFC 9113 8.2.2 allows it in requests",
    "content-length in trailers": "RFC 9110 6.5.1; nghttp2 refuses only one that is not the body's",
    "DATA before the head": "RFC 9113 8.1; nghttp2 takes an empty one",
    "DATA for a stream that is over": "nghttp2 ignores what comes for a stream that it has forgotten",
    "HEADERS for a stream that is over": "the same",
    "DATA for a stream that its sender has ended": "the same",
    "HEADERS for a stream that its sender has reset": "the same",
}
"""Why the codec may refuse what nghttp2 takes, by what it says."""


def difference(ours: Verdict, theirs: Verdict) -> str:
    """What is not the same; empty if nothing, or if it is known."""
    if not ours.is_bad and not theirs.is_bad:
        return "" if ours.told == theirs.told else f"told {ours.told}, nghttp2 {theirs.told}"
    if ours.is_bad and not theirs.is_bad:
        return "" if ours.detail in STRICTER else f"refused ({ours.detail}), nghttp2 took it: {theirs.told}"
    if theirs.is_bad and not ours.is_bad:
        return f"taken ({ours.told}), nghttp2 refused: over={theirs.is_over} resets={theirs.resets}"
    return ""


def is_unfinished(raw: bytes) -> bool:
    """The last frame of a header block is still to come."""
    return raw[3] in (HEADERS, CONTINUATION) and not raw[4] & END_HEADERS


def run(seed: int, role: Role, steps: int) -> tuple[int, str]:
    """Play one connection to both; returns how many frames it had, and a difference if there is one."""
    random = Random(seed)
    peer = GuidedFrames(random, is_server=role is Role.CLIENT, asked=ASKED if role is Role.CLIENT else ())
    ours, theirs = Ours(role), Theirs(role)
    count = 0
    for _ in range(steps):
        frames = peer.next()
        count += len(frames)
        data = b"".join(frames)
        mine, other = ours.step(data), theirs.step(data)
        if not mine.is_over and is_unfinished(frames[-1]):
            break  # nghttp2 says already what is wrong with the beginning of a block
        found = difference(mine, other)
        if found:
            return count, f"seed {seed} {role.name}: {found}; frames {[one.hex() for one in frames]}"
        is_terminating = not theirs.connection.want_read  # ngh2 takes no more after GOAWAY without a stream
        if mine.is_over or other.is_over or mine.resets != other.resets or is_terminating:
            break
    return count, ""
