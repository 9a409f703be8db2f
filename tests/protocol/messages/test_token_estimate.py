"""An estimate of a request's tokens: about right, of all that the model reads, and refused for what is malformed."""

from typing import Any

import orjson
import pytest

from edge.errors import BadRequest
from edge.protocol.messages.token_estimate import estimate


def estimated(**fields: Any) -> int:
    return estimate(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}))


def test_the_estimate_grows_with_what_the_model_has_to_read() -> None:
    plain = estimated()
    assert 1 <= plain < 10
    long = [{"role": "user", "content": "word " * 800}]
    assert 1000 <= estimated(messages=long) <= 1010
    assert 1000 <= estimated(system="word " * 800) - plain <= 1010
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}
    picture = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    assert 1000 < estimated(messages=picture) < 2000
    assert (
        estimated(tools=[{"name": "f", "description": "word " * 800, "input_schema": {"type": "object"}}])
        > plain + 1010
    )
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "word " * 800}]}
    assert 1000 <= estimated(messages=[{"role": "user", "content": [result]}]) <= 1010
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": "word " * 800}}
    assert 1000 <= estimated(messages=[{"role": "assistant", "content": [use]}]) <= 1010
    assert estimated(messages=[{"role": "user", "content": "漢" * 400}]) > estimated(
        messages=[{"role": "user", "content": "a" * 400}]
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"messages": []}, "messages"), ({"system": 7}, "system"), ({"tools": [{"name": "f"}]}, "tools.0.input_schema")],
)
def test_an_estimate_of_what_is_malformed_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        estimated(**fields)
    assert told.value.param == param
