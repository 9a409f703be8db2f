"""What a schema asks for, a plausible value has; and no schema does any harm."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.upstream.simulator.plausible import plausible

NODE = {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}, "required": ["child"]}
B = {"properties": {"b": {"const": 1}}, "required": ["b"]}
WIDE = {f"$d{n}": {"type": "array", "minItems": 9, "items": {"$ref": f"#/$defs/$d{n + 1}"}} for n in range(30)}

SCHEMAS: dict[str, tuple[Any, Any]] = {
    "nothing": (None, {}),
    "anything": ({}, "some text"),
    "no properties": ({"type": "object"}, {}),
    "no type": ({"properties": {"a": {}}}, {"a": "some a"}),
    "all of the outermost": ({"properties": {"a": {"type": "null"}, "b": {"type": "boolean"}}}, {"a": None, "b": True}),
    "the required within": (
        {"properties": {"a": {"properties": {"b": {}, "c": {}}, "required": ["c"]}}},
        {"a": {"c": "some c"}},
    ),
    "enum": ({"enum": ["x", "y"]}, "x"),
    "const": ({"const": 5, "enum": [1]}, 5),
    "default": ({"type": "string", "default": "d"}, "d"),
    "example": ({"type": "string", "examples": ["e"]}, "e"),
    "either": ({"type": ["null", "integer"]}, 1),
    "only null": ({"type": ["null"]}, None),
    "integer": ({"type": "integer"}, 1),
    "at least": ({"type": "integer", "minimum": 6.5}, 7),
    "at most": ({"type": "integer", "maximum": -3}, -3),
    "above": ({"type": "integer", "exclusiveMinimum": 6}, 7),
    "below": ({"type": "number", "exclusiveMaximum": 0}, -1),
    "number": ({"type": "number"}, 1.5),
    "huge": ({"type": "integer", "minimum": 1e300}, 2**53),
    "index": ({"properties": {"index": {"type": "number"}}}, {"index": 1}),
    "element index": ({"properties": {"elementIdx": {"type": "number", "minimum": 3}}}, {"elementIdx": 3}),
    "indices": ({"properties": {"row_ids": {"type": "array", "items": {"type": "number"}}}}, {"row_ids": [1]}),
    "or null": ({"properties": {"page": {"type": ["number", "null"]}}}, {"page": 1}),
    "one of": ({"properties": {"page": {"anyOf": [{"type": "null"}, {"type": "number"}]}}}, {"page": None}),
    "told in words": ({"type": "number", "description": "Index of the element to click"}, 1),
    "from zero": ({"type": "number", "description": "The zero-based index"}, 0),
    "integer from zero": ({"type": "integer", "description": "0-based line"}, 0),
    "multiple": ({"type": "number", "multipleOf": 5}, 5),
    "tenth": ({"type": "number", "multipleOf": 0.1}, 1.5),
    "no index": ({"properties": {"price": {"type": "number"}}}, {"price": 1.5}),
    "between": ({"properties": {"index": {"type": "number", "minimum": 0.1, "maximum": 0.5}}}, {"index": 0.5}),
    "date": ({"type": "string", "format": "date"}, "2026-01-31"),
    "long": ({"type": "string", "minLength": 12}, "some textxxx"),
    "short": ({"type": "string", "maxLength": 3}, "som"),
    "list": ({"type": "array", "items": {"type": "integer"}}, [1]),
    "two of it": ({"items": {"const": "x"}, "minItems": 2}, ["x", "x"]),
    "any of": ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
    "all of": (
        {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"$ref": "#/$defs/b"}], "$defs": {"b": B}},
        {"a": "some a", "b": 1},
    ),
    "reference": ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 7}}}, 7),
    "reference to nothing": ({"$ref": "#/$defs/c"}, "some text"),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), SCHEMAS.values(), ids=SCHEMAS)
def test_a_value_is_what_the_schema_asks_for(schema: Any, value: Any) -> None:
    assert plausible(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
        {"$ref": "#/$defs/$d0", "$defs": WIDE},
        {"type": "array", "minItems": 10**12},
        {"type": "string", "minLength": 10**12},
        {"properties": {f"p{n}": {"$ref": "#"} for n in range(500)}, "required": [f"p{n}" for n in range(500)]},
    ],
    ids=["itself", "all of itself", "any of itself", "endless", "growing", "long list", "long text", "wide"],
)
def test_a_schema_without_end_has_one_here(schema: Any) -> None:
    assert len(orjson.dumps(plausible(schema))) < 100_000


_KEYS = st.sampled_from(
    ["type", "properties", "required", "items", "anyOf", "allOf", "oneOf", "$ref", "enum", "const", "minimum",
     "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "format", "a"]
)  # fmt: skip
_WORDS = st.sampled_from(["object", "array", "integer", "number", "string", "null", "boolean", "#", "#/properties/a"])
_VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | _WORDS
_JSON = st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5))


@unhurried
@given(st.dictionaries(_KEYS, _JSON, max_size=6))
def test_whatever_is_called_a_schema_has_a_value(schema: dict[str, Any]) -> None:
    orjson.dumps(plausible(schema))
