"""The schema in a prompt is found as libraries write it, and no prompt does any harm."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.upstream.simulator.prompted_schema import schema_in

SCHEMA = {"properties": {"a": {"type": "string"}}, "required": ["a"], "type": "object"}
WRITTEN = orjson.dumps(SCHEMA).decode()
EXAMPLE = '{"properties": {"foo": {"type": "array", "items": {"type": "string"}}}}'


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], None),
        (["hi", "{", "{}", '{"a": {"properties": 1}}', "{a: b}"], None),
        ([WRITTEN], SCHEMA),
        (["hi", f"Answer after this schema:\\n```json\\n{WRITTEN}\\n```\\nNothing else."], SCHEMA),
        ([orjson.dumps(SCHEMA, option=orjson.OPT_INDENT_2).decode()], SCHEMA),
        # LangChain: an example, a good and a bad answer to it, and then the schema.
        ([f'For the schema {EXAMPLE} the object {{"foo": ["bar"]}} is right. Here is the schema:\\n{WRITTEN}'], SCHEMA),
        ([f"{{ {{not json}} {WRITTEN}"], SCHEMA),
        ([f'{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {WRITTEN}}}}}'], SCHEMA),
        (['{"$defs": {"x": {"type": "object"}}, "$ref": "#/$defs/x"}'],
         {"$defs": {"x": {"type": "object"}}, "$ref": "#/$defs/x"}),
        ([WRITTEN, "the last of several", EXAMPLE], orjson.loads(EXAMPLE)),
    ],
)  # fmt: skip
def test_the_last_schema_is_the_one(texts: list[str], found: Any) -> None:
    assert schema_in(texts) == found


@pytest.mark.parametrize("text", ["{" * 10**6, '{"a":' * 200_000, '{"a":"' * 100_000, "[" * 10**5 + "{" * 10**5])
def test_a_hostile_prompt_is_given_up(text: str) -> None:
    """50 braces that begin nothing are enough."""
    assert schema_in([text]) is None


@unhurried
@given(st.text('{}[]":,ab\\\\ ', max_size=60))
def test_any_text_is_survived(text: str) -> None:
    schema_in([text])
