"""Regular expressions on what clients write: in linear time, or refused with the remedy."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_text
from sidecar.config.schema.regex import MAX_BYTES, MAX_STEPS, Regex
from sidecar.core.question import TooMuchWork
from sidecar.core.routing import RoutingTable

CONFIG = Path(__file__).parents[2] / "config"
HOSTILE = (r"(a+)+$", r"(a|aa)*b", r"(a?){100}a{100}c", r"(.*a){40}b", r"([a-z]+)*\d")
"""For an engine that goes back, each letter more multiplies the time."""


def loaded(match: str) -> RoutingTable[str]:
    top = "version: 1\nupstreams: {a: {endpoints: ['a:1']}}\n"
    text = f"{top}routes: [{{name: r, upstream: a, match: {match}}}]\n"
    return RoutingTable([(route, route.name) for route in load_text(text).snapshot.routes])


def problem(pattern: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(f"{{path: {{regex: '{pattern}'}}}}")
    (found,) = caught.value.problems
    assert (found.line, found.column) == (3, 55)
    return found.message


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("where", ["path: %s", "headers: {x: %s}", "query: {x: %s}"])
def test_no_text_of_a_client_holds_the_loop(pattern: str, where: str) -> None:
    """With an engine that goes back, none of these would end within the life of the suite."""
    table = loaded("{" + where % f"{{regex: '/?{pattern}'}}" + "}")
    text = b"a" * 16_000 + b"!"
    try:
        found = table.find(b"h", b"/" + text, b"GET", {b"x": text}, b"x=" + text)
    except TooMuchWork:
        found = None
    assert found is None


def test_a_match_is_that_of_the_whole_text() -> None:
    regex = Regex("/v[0-9]+|/w")
    assert [regex.holds(text) for text in (b"/v1", b"/w", b"/v", b"/v1/", b"x/v1", b"/v1\n", b"")] == [
        *(True, True),
        *(False, False, False, False, False),
    ]


def test_neither_a_line_break_nor_a_byte_that_is_no_text_slips_past() -> None:
    table = loaded("{path: {regex: '/admin/.*'}}")
    for path in (
        b"/admin/",
        b"/admin/a%0Ab",
        b"/admin/%0A",
        b"/admin/%FF",
        b"/admin/%00",
        "/admin/ü".encode(),
    ):
        assert table.find(b"h", path, b"GET", {}, b"") == "r", path
    assert table.find(b"h", b"/admi%0A/", b"GET", {}, b"") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "/(?=a)b",
            "'/(?=a)b' has look-around, (?=, which has no bound in time: say what must match, and let",
        ),
        ("/(?<!a)b", "has look-around, (?<!, which"),
        (r"/(a)\1", r"has a back-reference, \1, which has no bound in time: spell out what may follow"),
        ("/(?P<x>a)(?P=x)", "has a back-reference, (?P, which"),
        ("/a++", "has a possessive repetition, ++, which has no bound in time: write one + less"),
        ("/(?>a)", "has an atomic group, (?>, which has no bound in time: write (?:…)"),
        ("/(a)?(?(1)b|c)", "has a condition, (?(, which"),
        ("/(?x) a", "is not a regular expression: (?x is not known: groups are (?:…) and (?P<name>…)"),
        (r"/a\Z", r"is not a regular expression: \Z is not known: leave it out"),
        (r"/\u00e9", r"\u is not known: write \x{…}, or the character itself"),
        (r"/\h", r"is not a regular expression: invalid escape sequence: \h"),
        ("/a{1001}", "{1001} is no repetition; it counts up, and to 1000 at most"),
        ("/a{3,2}", "{3,2} is no repetition"),
        ("/v(1", "'/v(1' is not a regular expression: missing ): /v(1"),
        (
            "/.{100}",
            f"'/.{{100}}' is too large: it takes 705 steps, and the limit is {MAX_STEPS}; write + or *",
        ),
        (r"/(\p{L}{30}){30}", f"is too large: it takes more than {MAX_STEPS} steps, and the limit"),
        ("/" + "a" * 1000, f"aaa'… is too large: it takes 1005 steps, and the limit is {MAX_STEPS}"),
    ],
)
def test_what_has_no_bound_is_refused_with_the_remedy(
    pattern: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in problem(pattern)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "pattern",
    ["/[^/]{1,64}", "(?i)/a", "/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "/(?P<v>v[0-9]+)/.*", ""],
)
def test_what_routes_need_is_taken(pattern: str) -> None:
    assert Regex(pattern).pattern == pattern


def test_a_regex_travels_as_its_text_and_equals_another_of_the_same() -> None:
    regex = Regex("/a+")
    copy = pickle.loads(pickle.dumps(regex))
    assert copy == regex
    assert hash(copy) == hash(regex)
    assert copy.holds(b"/aa")
    assert copy != Regex("/a*")
    assert repr(regex) == "Regex(pattern='/a+')"


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("/v1/.*", b"/v1/"),
        ("/v1x+", b"/v1"),
        ("/ab?c", b"/a"),
        ("/a{2}", b"/"),
        ("/v(1|2)/.*", b"/v"),
        ("/a(?P<x>b|(c|d))/e", b"/a"),
        (r"/a\|b", b"/a"),
        ("/v1|/w", b""),
        ("/a(b|c)|d", b""),
        ("/a[|]b|c", b""),
        (r"/a\Q|\E", b""),
        ("(?i)/a", b""),
        ("a|", b""),
        ("", b""),
    ],
)
def test_a_prefix_is_what_every_match_begins_with(pattern: str, prefix: bytes) -> None:
    """Where that is not certain it is empty, which costs time and no match."""
    assert Regex(pattern).prefix == prefix


def test_the_memory_of_a_regex_is_bounded() -> None:
    """2 to the power of 30 states would be kept if all were."""
    regex = Regex("(?s).*a[ab]{30}")
    before = resident_bytes()
    for number in range(200):
        regex.holds(f"{number:b}".replace("0", "a").replace("1", "b").encode() * 2000)
    assert resident_bytes() - before < 4 * MAX_BYTES


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(("file", "is_imported"), [("minimal.yaml", False), ("reference.yaml", True)])
def test_the_library_is_loaded_by_the_first_regex(file: str, is_imported: bool) -> None:
    program = (
        "import sys; from sidecar.config.load import load_file; "
        "load_file(sys.argv[1]); print('re2' in sys.modules)"
    )
    words = [sys.executable, "-c", program, str(CONFIG / file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(is_imported)
