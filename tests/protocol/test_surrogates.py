"""Half characters find their other half, wherever it comes, and nothing else is let through."""

import orjson
import pytest

from edge.protocol.json_text import Halves


def texts(*events: str) -> list[str]:
    halves = Halves()
    return [halves.loads(b'{"a": [{"index": 0, "t": "%b"}]}' % event.encode())["a"][0]["t"] for event in events]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (["a\\ud83c", "\\udf88b"], ["a", "🎈b"]),
        (["a\\uD83C", "\\uDF88\\ud83c", "\\udf88"], ["a", "🎈", "🎈"]),
        (["\\udf88"], ["\ufffd"]),
        (["\\ud83cx"], ["\ufffdx"]),
        (["\\ud83c", "\\ud83c", "\\udf88"], ["", "\ufffd", "🎈"]),
        (["\\ud83c\\udf88"], ["🎈"]),
    ],
)
def test_halves_are_joined(events: list[str], told: list[str]) -> None:
    assert texts(*events) == told
    assert orjson.dumps(told)


def test_each_choice_has_halves_of_its_own() -> None:
    halves = Halves()
    event = b'{"choices": [{"index": %d, "text": "%b"}]}'
    said = [(0, b"\\ud83c"), (1, b"\\ud83d"), (0, b"\\udf88"), (1, b"\\ude00")]
    assert [halves.loads(event % one)["choices"][0]["text"] for one in said] == ["", "", "🎈", "😀"]


def test_names_have_no_halves_either() -> None:
    assert Halves().loads(b'{"\\udf88": 1}') == {"\ufffd": 1}


@pytest.mark.parametrize("data", [b"{", b'{"a": "\\ud83c"', b'"\xff\\ud83c"', b'["\\ud83c"' + b"[" * 100_000])
def test_what_is_no_json_for_another_reason_stays_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Halves().loads(data)


def test_nan_in_an_event_is_read_and_a_bare_one_is_none() -> None:
    assert Halves().loads(b'{"a": [-Infinity, 1]}') == {"a": [float("-inf"), 1]}
    with pytest.raises(ValueError, match="no event"):
        Halves().loads(b"NaN")
