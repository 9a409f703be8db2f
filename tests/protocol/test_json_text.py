"""JSON that orjson refuses or rounds is read, and written as it came."""

import pickle

import orjson
import pytest

from edge.protocol.canonical import Target
from edge.protocol.json_text import dumps, loads
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import translate

LONG = (b"123456789012345678901234567890", b"-9223372036854775809", b"1e400", b"-1e-400", b"0.12345678901234567890123")


@pytest.mark.parametrize("number", [*LONG, b"18446744073709551615", b"-9223372036854775808", b"0.1", b"17"])
def test_numbers_keep_their_text(number: bytes) -> None:
    text = b'{"a":[%b]}' % number
    assert dumps(loads(text)) == text
    assert dumps(pickle.loads(pickle.dumps(loads(text)))) == text  # noqa: S301 - its own


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"a\\ud83d"', "a\ufffd"),
        (b'"\\ude00 \\ud83d\\ude00"', "\ufffd 😀"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'"\\\\\\ud83d"', "\\\ufffd"),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        (b'["\\ud83d", 123456789012345678901]', ["\ufffd", 123456789012345678901.0]),
        (b"[-0, 1e5, 0e-400]", [0, 100000.0, 0.0]),
    ],
)
def test_half_characters_are_replaced(text: bytes, value: object) -> None:
    assert loads(text) == value


def test_nan_and_infinities_become_null_in_what_edge_writes() -> None:
    assert dumps(loads(b"[NaN, Infinity, -Infinity]")) == b"[null,null,null]"


@pytest.mark.parametrize("text", [b"[NaN]", b"{", b'"\xff"', b"[" * 2000, b'"\n"', b"123456789012345678901,"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(text, finite=True)


@pytest.mark.parametrize("number", LONG)
@pytest.mark.parametrize("to", [Surface.CHAT, Surface.OLLAMA_CHAT])
def test_translated_calls_and_schemas_keep_their_numbers(number: bytes, to: Surface) -> None:
    schema = b'{"type":"object","properties":{"a":{"maximum":%b}}}' % number
    call = b'{"type":"tool_use","id":"c","name":"f","input":{"x":%b}}' % number
    body = (
        b'{"model":"m","max_tokens":9,"tools":[{"name":"f","input_schema":%b}],"messages":['
        b'{"role":"user","content":"a"},{"role":"assistant","content":[%b]},'
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"b"}]}]}' % (schema, call)
    )
    written = translate(prepare(Surface.MESSAGES, body), Target(to, "u", cloud=False)).body
    assert b'"maximum":' + number in written
    assert b'"x":' + number in written or b'\\"x\\":' + number in written


def test_a_relayed_request_keeps_its_numbers() -> None:
    prepared = prepare(Surface.CHAT, b'{"messages":[],"metadata":{"id":123456789012345678901234}}')
    assert b'"id":123456789012345678901234' in prepared.body
