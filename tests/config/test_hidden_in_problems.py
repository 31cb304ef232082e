"""The line that a problem shows, and its words: no secret in them, and all that is needed to mend it."""

from __future__ import annotations

import random
import re

import pytest

from sidecar.config.load import ConfigError, load_text
from sidecar.config.schema.file import File
from sidecar.config.schema.section import keys_of
from sidecar.config.schema.telemetry import OtlpSection, TelemetrySection
from sidecar.config.tell.hidden_in_problems import KNOWN

TOP = "version: 1\nupstreams: {auth: {endpoints: ['a:1']}}\nroutes: [{name: a, upstream: auth}]\n"


def shown(text: str) -> list[str]:
    """The problems of the file, without their places in front."""
    with pytest.raises(ConfigError) as caught:
        load_text(TOP + text)
    return [re.sub(r"^sidecar\.yaml:\d+:\d+: ", "", str(problem)) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "message", "expected"),
    [
        (
            "telemetry: {otlp: {endpoint: 'http://ann:hush@c:4317?k=hush', headers: {x-team: hush}, protocol: x}}",
            "expected one of grpc, http/protobuf; got 'x'",
            "telemetry: {otlp: {endpoint: 'http://********@c:4317?******', headers: {x-team: ****}, protocol: x}}",
        ),
        (
            "telemetry: {otlp: {endpoint: 'ftp://ann:hush@c?k=hush'}}",
            "'ftp://********@c?******' is not a URL such as http://otel-collector:4317",
            "telemetry: {otlp: {endpoint: 'ftp://********@c?******'}}",
        ),
        (
            "telemetry: {otlp: {endpoint: 'ann:hush@c:4317'}}",
            "'********@c:4317' is not a URL such as http://otel-collector:4317",
            "telemetry: {otlp: {endpoint: '********@c:4317'}}",
        ),
        (
            "telemetry: {otlp: {endpoint: 'http://c', headers: hush-1234}}",
            "expected a mapping, got the text '(hidden)'",
            "telemetry: {otlp: {endpoint: 'http://c', headers: *********}}",
        ),
        (
            "telemetry: {otlp: {endpoint: 'http://c', header: {x-team: hush}}}",
            "unknown key 'header': did you mean 'headers'?",
            "telemetry: {otlp: {endpoint: 'http://c', header: {x-team: ****}}}",
        ),
        (
            "telemetry: {headers: {x-team: hush}}",
            "unknown key 'headers': it belongs under `otlp`, as otlp: {headers: …}",
            "telemetry: {headers: {x-team: ****}}",
        ),
        (
            "admin: {token: hush, address: '127.0.0.1:1'}",
            "unknown key 'token': did you mean 'token_file'?",
            "admin: {token: ****, address: '127.0.0.1:1'}",
        ),
        (
            "admin: {token_file: /run/token, address: 'x'} # token: hush, but this is a comment",
            "'x' has no port: write it as in 127.0.0.1:15001",
            "admin: {token_file: /run/token, address: 'x'} # ****** ***** *** **** ** * *******",
        ),
        (
            "defaults: {request_headers: {set: {authorization: 12345678}}}",
            'expected text, got (hidden); put it in quotes: "(hidden)"',
            "defaults: {request_headers: {set: {authorization: ********}}}",
        ),
        (
            "defaults: {request_headers: {set: {cookie: a=hush, cookie: b=hush}}}",
            "duplicate key 'cookie': first given at sidecar.yaml:4:36",
            "defaults: {request_headers: {set: {cookie: ******, cookie: ******}}}",
        ),
        (
            "defaults: {request_headers: {set: {x-api-key:hush}}}",
            "'x-api-key:(hidden)' is not a header name: letters, digits and !#$%&'*+-.^_`|~ only",
            "defaults: {request_headers: {set: {x-api-key:****}}}",
        ),
        (
            "defaults: {request_headers: {set: ['authorization: Bearer hush']}}",
            "expected a mapping, got a list",
            "defaults: {request_headers: {set: ['authorization: ****** ****']}}",
        ),
        (
            'defaults: {fallback: {status: 99, headers: {x-a: "${X:-hush}", x-b: seen}, body: "${Y:-hush}"}}',
            "99 is out of range: from 200 to 599",
            'defaults: {fallback: {status: 99, headers: {x-a: "${X:-****}", x-b: seen}, body: "${Y:-****}"}}',
        ),
        (
            'defaults: {request_headers: {set: {authorization: "Bearer ${X}hush"}}}',
            "environment variable X is not set; set it, or write ${X:-default}",
            'defaults: {request_headers: {set: {authorization: "****** ${X}****"}}}',
        ),
    ],
)
def test_a_secret_is_hidden_and_the_rest_of_the_line_is_seen(line: str, message: str, expected: str) -> None:
    (found,) = shown(line)
    told, below, caret = found.splitlines()
    assert (told, below) == (message, expected)
    assert caret.strip() == "^"


def test_what_is_wrong_itself_is_seen() -> None:
    (found,) = shown("defaults: {circuit_breaker: {open_for: 5}, request_headers: {set: {x-key: hush}}}")
    assert found == (
        "a duration needs a unit: write 5s or 5ms\n"
        "defaults: {circuit_breaker: {open_for: 5}, request_headers: {set: {x-key: ****}}}\n"
        "                                       ^"
    )


def test_names_that_users_choose_say_nothing() -> None:
    found = shown("listeners: {token: {address: x-1}, auth-key: {address: '127.0.0.1:1'}}")[-1]
    assert "listeners: {token: {address: x-1}, auth-key: {address: '127.0.0.1:1'}}" in found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "defaults:\n  request_headers: {set: {authorization: Bearer hush: 1}}\n",
            "  request_headers: {set: {authorization: ****** ****: *}}",
        ),
        ("telemetry:\n  otlp:\n    headers:\n      x-team: hush: 5\n", "      x-team: ****: *"),
        ("defaults:\n  x-key:\n    - one: hush: 5\n", "    - ***: ****: *"),
        ("telemetry: {otlp: {endpoint: http://ann:hush@c?hush}]\n", "telemetry: {otlp: {endpoint: http://***:****@c?****}]"),
        ("admin: ]  # Bearer hush\n", "admin: ]  # ****** ****"),
        ("drain: {delay: 5s]\n", "drain: {delay: 5s]"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_yaml_is_judged_by_its_words(text: str, line: str) -> None:
    (found,) = shown(text)
    assert found.splitlines()[1] == line


def test_the_known_keys_are_those_of_the_format() -> None:
    sections = {(): File, ("telemetry",): TelemetrySection, ("telemetry", "otlp"): OtlpSection}
    assert {path: set(keys_of(section)) for path, section in sections.items()} == KNOWN


SECRETS = """\
version: 1
admin: {trace_url: "http://ann:hush@jaeger/{trace_id}?k=hush", address: 127.0.0.1:1}
telemetry:
  otlp:
    endpoint: "http://ann:hush@collector:4317"
    headers:
      x-team: hush-team
      x-other: "hush"
upstreams: {app: {endpoints: ["a:80"]}}
routes:
- name: a
  match: {headers: {x-api-key: hush-1}, query: {access_token: "hush"}}
  upstream: app
  request_headers: {set: {authorization: Bearer hush, x-plain: seen}}
  response_headers:
    add:
      set-cookie: >-
        hush and
        hush
      x-session: {exact: hush}
  fallback: {status: 200, headers: {x-secret: 'hush'}}
"""
MARKS = re.compile(r"(?<=\S)[\s{}\[\],:'\"|>-]")


@pytest.mark.parametrize("seed", range(500))
def test_no_edit_of_the_signs_between_words_brings_a_secret_to_light(seed: int) -> None:
    rng = random.Random(seed)
    text = SECRETS
    for _ in range(rng.randint(1, 4)):
        found = rng.choice([*MARKS.finditer(text)])
        sign = rng.choice(["", *" \t\n{}[],:'\"#&*|>%@-", ": ", " #", "\n  ", "x", "\x07"])
        is_kept = found[0] == ":" or rng.random() < 0.5  # without its colon nothing tells a name from a word
        sign = sign.strip("\n") if found[0] == ":" else sign
        text = text[: found.start()] + sign + text[found.start() if is_kept else found.end() :]
    told = ""
    try:
        load_text(text)
    except ConfigError as error:
        told = str(error)
    assert "hush" not in told, text
