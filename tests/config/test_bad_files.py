"""Each file in `bad/` says at its top which problems it has; these and no others are reported."""

import re
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_file

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
EXPECTED = re.compile(r"^# expect: (\d+):(\d+): (.*)$", re.MULTILINE)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gives_exactly_the_problems_it_names(path: Path) -> None:
    text = path.read_text()
    names = {"FILE": str(path), "DIR": str(path.parent)}
    expected = [
        (int(line), int(column), re.sub("FILE|DIR", lambda m: names[m[0]], message))
        for line, column, message in EXPECTED.findall(text)
    ]
    with pytest.raises(ConfigError) as caught:
        load_file(path, {})
    assert [(p.line, p.column, p.message) for p in caught.value.problems] == expected
    lines = [*text.splitlines(), ""]
    for found, (line, _, _) in zip(caught.value.problems, expected, strict=True):
        assert found.file == str(path)
        assert hidden_alike(lines[line - 1], found.text) == found.text


def hidden_alike(line: str, shown: str) -> str:
    """The line with a `*` where `shown` has one: which those are is not told here."""
    return "".join("*" if there == "*" else here for here, there in zip(line, shown, strict=True))


def test_there_are_many_bad_files() -> None:
    assert len(BAD) >= 40
