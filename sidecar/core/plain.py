"""Heads that need no state machine: whole, in the usual form, read in one pass over known lines.

Most messages arrive with their whole head in one read, and most of its lines are to the byte what an earlier head
had. Such a *plain* head is split, and each line is looked up; a line not seen before is checked and remembered. Lines
that are all known are remembered together as one block, which the next such head is looked up by. Where some differ
each time, as the ids of a trace do, what is remembered is a template of the others.
Whatever is not plain in any way gives None, and the connection hands the same bytes to llhttp, which decides. So
this may be stricter than llhttp wherever that is simpler, and must never be more lenient, nor read anything
differently: `tests/core/test_plain.py` holds the two against each other. The one exception are methods, of which
llhttp has a list. Nor may what is remembered change what is read: the same tests compare with a reader that
remembers nothing.

Measured for a whole exchange without the kernel (`tests/bench/path_cost.py`): a GET takes 7.6 µs, and 11.4 with
llhttp alone; a POST of 16 KiB 9.3 and 18.4, since the body needs no parser either. A line that differs each time
costs 0.4 µs more than one that is remembered.

What is remembered is bounded and holds nothing of one request alone: see `_remember`. Owner: the loop's thread.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.block import AnswerBlock, Block, Filled
from sidecar.core.head_template import HeadTemplate

Field = tuple[bytes, bytes, bytes]
"""The key to look it up by (lower case), the line as it is passed on (`Name: value` CRLF), the value."""

MAX_KNOWN: Final = 1024
"""Lines that are remembered; when they are so many, all are forgotten. With `MAX_LINE_BYTES`: about 1 MiB at most."""
MAX_LINES_OF_A_NAME: Final = 64
"""After so many of a name, its further ones only cost: a timeout in milliseconds would push everything else out."""
MAX_LINE_BYTES: Final = 256
MAX_LENGTH_DIGITS: Final = 15
MAX_BLOCKS: Final = 256
"""Blocks of lines that are remembered whole, of requests and of responses each; when they are so many, all are
forgotten. With `MAX_BLOCK_BYTES`, and each a second time as it goes on: about 1 MiB at most."""
MAX_BLOCK_BYTES: Final = 1024
MAX_TEMPLATES: Final = 8
"""A client needs one for each kind of its requests. To pass one over takes 600 instructions."""
MAX_GAPS: Final = 8
"""Lines of a template that differ each time."""
MAX_BETWEEN_BYTES: Final = 256
"""From one of them to the next. It is looked for byte by byte: the worst that a head can do takes 0.3 ms."""
LEARNING_TURN: Final = 8
"""Of so many heads that no template fits, one makes a template: else they could cost more than without any."""
PARTED_BYTES: Final = 8192
"""Up to so many, a copy of the body costs less than to look for the head's end and to make a view of the rest."""

_NEVER_KNOWN: Final = frozenset({
    b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-api-key", b"traceparent", b"tracestate",
    b"baggage", b"x-request-id", b"x-amzn-trace-id", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid",
    b"uber-trace-id", b"x-datadog-trace-id", b"x-datadog-parent-id", b"x-datadog-tags", b"etag",
    b"if-none-match", b"date", b"x-forwarded-for", b"forwarded",
})  # fmt: skip
"""Secrets must not outlive their request, and what differs each time would only push the others out."""

_NOT_PLAIN: Final = frozenset({
    b"transfer-encoding", b"upgrade", b"expect", b"te", b"trailer", b"proxy-connection", b"keep-alive",
    b"http2-settings",
})  # fmt: skip
_END: Final = b"\r\n\r\n"
_END_BYTES: Final = len(_END)
_VERSION: Final = b"HTTP/1.1\r\n"
_VERSION_BYTES: Final = len(_VERSION)
_LF: Final = 10
_SLASH: Final = 47
_CRLF: Final = b"\r\n"
_LENGTH: Final = b"content-length"
_CONNECTION: Final = b"connection"

_CHECKED: Final = frozenset({_LENGTH, _CONNECTION})
"""Whose value is looked at each time that it is new."""

_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
"""The usual ones: one look-up tells that they are plain. See `_is_plain_method` for the others."""
MAX_METHOD_BYTES: Final = 32
_AS_TARGET: Final = bytes(byte if 0x21 <= byte < 0x7F and byte != 0x23 else byte ^ 1 for byte in range(256))
"""Translates what is visible, without `#`, to itself, and all else to something else. To compare a value with what it
is translated to takes 0.07 µs, to translate with a set of bytes to delete 0.13 to 0.2."""
TOKEN_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALUE_BYTES: Final = b"\t" + bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)
_AS_VALUE: Final = bytes(byte if byte in VALUE_BYTES else byte ^ 1 for byte in range(256))
"""The same for the bytes of a value."""

_known: dict[bytes, Field] = {}
_lines_of: dict[bytes, int] = {}
"""How many lines of a name are in `_known`."""
_varying: dict[bytes, bytes] = {}
"""Names as written, and their keys, whose lines are not remembered: only the value is still to be checked."""
_statuses: dict[bytes, int] = {}
_recall = _known.get


# As finals, by which compiled code tells the kinds of fields apart: it asks the module for any other name.
BLOCK: Final = Block
FILLED: Final = Filled
ANSWER_BLOCK: Final = AnswerBlock

PlainRequest = tuple[bytes, bytes, list[Field], dict[bytes, bytes], int]
"""Method, target, fields, their values by key (none comes twice), and where in the data the body begins. Fields and
values may be a `Block`'s, so nobody changes them; those of a template are `Filled`."""
PlainResponse = tuple[int, list[Field], int, bytes | memoryview]
"""Status, fields (maybe a `Block`), length of the body, and what is there of it, or of more. A long one is a view of
the data."""

_blocks: Final[dict[bytes, Block]] = {}
"""A request's head from its version on, end included, where all of its lines are in `_known`. A GET is read in 0.4 µs
where it takes 1.3 by lines, and its lines need not be joined anew for the upstream: 0.2 µs more."""
_templates: Final[list[HeadTemplate]] = []
"""The one that was filled in most often tends to be first."""
_was_filled = False
"""The head before filled in a template. The next one most likely does as well: to look for it among `_blocks` first
takes 500 instructions."""
_misses = 0
"""Heads with lines that differ each time and that no template fitted."""
_ResponseHead = tuple[int, list[Field], int]
"""Status, fields, length of the body."""
_heads: Final[dict[bytes, _ResponseHead]] = {}
"""The same for responses, with the status line: 0.3 µs instead of 1.1."""


def read_request(data: bytes) -> PlainRequest | None:
    """Return the head that `data` begins with, None if there is no whole and plain one.

    Plain is one in HTTP/1.1 and origin form whose body, if any, has a known length. Fields may not repeat, and their
    names have no `_`. `Connection` may say `keep-alive` and nothing else. The method may be any token (RFC 9110 9.1),
    upper case or not, but `CONNECT`.
    """
    global _was_filled
    # The body of a large one is not copied. A small one is cut at once: to look for its end takes 0.1 µs.
    head = data if len(data) <= MAX_BLOCK_BYTES else data[: data.find(_END) + _END_BYTES]
    try:
        method, target, rest = head.split(b" ", 2)
    except ValueError:
        return None
    if (
        (method not in _METHODS and not _is_plain_method(method))
        or not target
        or target[0] != _SLASH
        or target.translate(_AS_TARGET) != target
        or not rest
    ):
        return None
    was_filled = _was_filled
    if was_filled:
        filled = _fill(rest)
        if filled is not None:
            fields, body_bytes = filled
            return method, target, fields, fields.lookup, len(head) - body_bytes
        _was_filled = False
    if rest[-1] == _LF:  # else there is a body, which nobody has seen before
        block = _blocks.get(rest)
        if block is not None:
            return method, target, block, block.lookup, len(head)
    end = rest.find(_END, _VERSION_BYTES - 2) + _END_BYTES
    if end < _VERSION_BYTES + _END_BYTES or rest[:_VERSION_BYTES] != _VERSION:  # no end, or no fields
        return None
    start = len(head) - len(rest) + end
    if end < len(rest):
        rest = rest[:end]
        block = _blocks.get(rest)
        if block is not None:
            return method, target, block, block.lookup, start
    if not was_filled:
        filled = _fill(rest)
        if filled is not None:
            _was_filled = True
            fields, _ = filled
            return method, target, fields, fields.lookup, start
    read = _read_lines(rest)
    if read is None:
        return None
    return method, target, *read, start


def read_response(data: bytes) -> PlainResponse | None:
    """Return the head that `data` begins with, None if there is no whole and plain one.

    Plain is one with a status from 200 to 599 that allows a body, and one `Content-Length`.
    """
    body: bytes | memoryview
    if len(data) <= PARTED_BYTES:
        text, end, body = data.partition(_END)
        if not end:
            return None
        head = _heads.get(text) or _read_response_head(text)
    else:
        start = data.find(_END)
        if start < 0:
            return None
        text = data[:start]
        head = _heads.get(text) or _read_response_head(text)
        body = _behind(data, start + _END_BYTES) if head is not None else b""
    if head is None:
        return None
    status, fields, length = head
    return status, fields, length, body


def _behind(data: bytes, start: int) -> bytes | memoryview:
    """What stands behind a head, without a copy where it is most of `data`: for 64 KiB the copy took a third of all
    that an exchange takes. Of a short body behind a long head a view would keep much more in memory than is counted.
    """
    return memoryview(data)[start:] if 2 * start < len(data) else data[start:]


def _read_response_head(text: bytes) -> _ResponseHead | None:
    """One that is not remembered; `text` is without its end."""
    first, *lines = text.split(b"\r\n")
    status = _statuses.get(first) or _learn_status(first)
    if not status:
        return None
    fields = list(map(_recall, lines))
    is_known = all(fields)
    if not is_known and not _complete(fields, lines):
        return None
    length = None
    for key, _, value in fields:  # type: ignore[misc]  # no None is left
        if key == _LENGTH:
            if length is not None:
                return None
            length = value
    if length is None:
        return None
    if is_known:
        _remember_head(text, status, fields, int(length))  # type: ignore[arg-type]
    return status, fields, int(length)  # type: ignore[return-value]


_Fields = tuple[list[Field], dict[bytes, bytes]]


def _read_lines(text: bytes) -> _Fields | None:
    """Read a request's fields line by line; `text` begins with the version. Remembers them as a block if all are
    known, else a template of those that are."""
    lines = text[_VERSION_BYTES:-_END_BYTES].split(_CRLF)
    fields = list(map(_recall, lines))
    known = None if all(fields) else tuple(fields)
    if known is not None and not _complete(fields, lines):
        return None
    lookup = {}
    for key, _, value in fields:  # type: ignore[misc]  # no None is left
        lookup[key] = value
    if len(lookup) != len(lines):
        return None
    if len(text) <= MAX_BLOCK_BYTES:
        if known is not None:
            _learn_template(known, lines, fields)  # type: ignore[arg-type]
        else:
            if len(_blocks) >= MAX_BLOCKS:
                _blocks.clear()
            _blocks[text] = Block(fields, lookup)  # type: ignore[arg-type]
    return fields, lookup  # type: ignore[return-value]


def _fill(text: bytes) -> tuple[Filled, int] | None:
    """Read a request's fields by a template; `text` begins with the version. Returns them, and how many bytes are
    behind them; None if no template fits.

    Of seven lines, two of which differ each time: a third of what it takes line by line.
    """
    for number, template in enumerate(_templates):
        if text[: template.start_bytes] == template.start:
            filled = _fill_in(template, text[template.start_bytes :])
            if filled is not None:
                if number:
                    _templates[number] = _templates[number - 1]
                    _templates[number - 1] = template
                return filled
    return None


def _fill_in(template: HeadTemplate, text: bytes) -> tuple[Filled, int] | None:
    """The same by this template; `text` is behind its start. Reads each value as `_read_varying` does."""
    fields = Filled(template.begins)  # type: ignore[arg-type]  # each None is replaced
    lookup = template.lookup.copy()
    for place, key, name, behind in template.gaps:
        value, has_ended, text = text.partition(behind)
        if not has_ended or not (
            value.isalnum() or (value.translate(_AS_VALUE) == value == value.strip(b" \t"))
        ):
            return None
        if key == _LENGTH and not (value.isdigit() and len(value) <= MAX_LENGTH_DIGITS):
            return None
        fields[place] = key, name + value + b"\r\n", value
        lookup[key] = value
    fields.template = template
    fields.lookup = lookup
    return fields, len(text)


def _is_plain_method(method: bytes) -> bool:
    """True for a token of at most `MAX_METHOD_BYTES`; False for CONNECT, which asks for a tunnel."""
    return (
        0 < len(method) <= MAX_METHOD_BYTES
        and not method.translate(None, TOKEN_BYTES)
        and method != b"CONNECT"
    )


def _complete(fields: list[Field | None], lines: list[bytes]) -> bool:
    """Put in the fields that were not remembered; False if one of them is not plain."""
    for index, field in enumerate(fields):
        if field is None:
            field = fields[index] = _read_varying(lines[index]) or _learn(lines[index])
            if field is None:
                return False
    return True


def _read_varying(line: bytes) -> Field | None:
    """Read a line of a name whose lines are not remembered: 0.2 µs, where `_learn` takes 0.7. None for any other."""
    name, colon, value = line.partition(b":")
    key = _varying.get(name)
    if key is None or not colon:
        return None
    if value[:1] == b" ":
        written, value = line + b"\r\n", value[1:]
    else:
        written = b"%b: %b\r\n" % (name, value)
    return (key, written, value) if value.isalnum() or _is_stripped_value(value) else None


def _is_stripped_value(value: bytes) -> bool:
    return value.translate(_AS_VALUE) == value == value.strip(b" \t")


def _learn(line: bytes) -> Field | None:
    """Read a line that is not remembered; None if it is not plain."""
    name, colon, value = line.partition(b":")
    if (
        not colon or not name or name.translate(None, TOKEN_BYTES) or 95 in name
    ):  # _, which is looked at closer
        return None
    value = value.strip(b" \t")
    if value.translate(_AS_VALUE) != value:
        return None
    key = name.lower()
    if (
        key in _NOT_PLAIN
        or (key == _CONNECTION and value.lower() != b"keep-alive")
        or (key == _LENGTH and not (value.isdigit() and len(value) <= MAX_LENGTH_DIGITS))
    ):
        return None
    field = (key, b"%b: %b\r\n" % (name, value), value)
    if len(line) <= MAX_LINE_BYTES:
        _remember(line, name, field)
    return field


def _remember(line: bytes, name: bytes, field: Field) -> None:
    if len(_known) >= MAX_KNOWN or len(_varying) >= MAX_KNOWN:
        _known.clear()
        _lines_of.clear()
        _varying.clear()
        _blocks.clear()
        _templates.clear()
        _heads.clear()
    key = field[0]
    count = _lines_of.get(key, 0)
    if key not in _NEVER_KNOWN and count < MAX_LINES_OF_A_NAME:
        _known[line] = field
        _lines_of[key] = count + 1
    elif key not in _CHECKED:
        _varying[name] = key


def _learn_template(known: tuple[Field | None, ...], lines: list[bytes], fields: list[Field]) -> None:
    """Remember what is the same in further heads like this one; `known`: its fields, None for those that were not
    known. Holds values of known ones alone."""
    global _misses
    _misses += 1
    if _misses % LEARNING_TURN or known.count(None) > MAX_GAPS:
        return
    between: list[bytes] = [_VERSION]
    gaps: list[tuple[int, bytes, bytes]] = []
    for place, field in enumerate(known):
        line, (key, written, value) = lines[place], fields[place]
        if field is not None:
            between[-1] += line + _CRLF
        elif written == line + _CRLF and _recall(line) is None and key != _CONNECTION:
            name = line[: len(line) - len(value)]
            between[-1] += name
            gaps.append((place, key, name))
            between.append(_CRLF)
        else:  # in another form than it goes on; or it is known by now, so the next one will be
            return
    between[-1] += _CRLF
    start, *behind = between
    if max(map(len, behind)) > MAX_BETWEEN_BYTES:
        return
    if len(_templates) >= MAX_TEMPLATES:
        _templates.pop()
    _templates.append(
        HeadTemplate(known, start, [(*gap, text) for gap, text in zip(gaps, behind, strict=True)])
    )


def _remember_head(text: bytes, status: int, fields: list[Field], length: int) -> None:
    """All of its lines are known."""
    if len(text) <= MAX_BLOCK_BYTES:
        if len(_heads) >= MAX_BLOCKS:
            _heads.clear()
        _heads[text] = status, AnswerBlock(fields, {}), length


def _learn_status(line: bytes) -> int:
    """Return the status of a status line that allows a body of known length, 0 for any other."""
    status = line[9:12]
    if line[:9] != b"HTTP/1.1 " or not status.isdigit() or line[12:13] != b" " or len(line) > MAX_LINE_BYTES:
        return 0
    number = int(status)
    if not 200 <= number <= 599 or number in (204, 205, 304) or line.translate(None, VALUE_BYTES):
        return 0
    if len(_statuses) >= MAX_KNOWN:
        _statuses.clear()
    _statuses[line] = number
    return number
