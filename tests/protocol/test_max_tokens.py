"""How many tokens an answer may have: more is refused by name, and what is left open is filled in."""

from typing import Any

import orjson
import pytest

from edge.errors import BadRequest
from edge.protocol.max_tokens import cap, for_cloud
from edge.protocol.request import prepare
from edge.protocol.session.parse import parse, prepared, read
from edge.protocol.surface import Surface
from edge.protocol.transcode import prepare_crossed

S = Surface


def capped(surface: Surface, body: dict[str, Any], most: int = 100) -> dict[str, Any]:
    before = dict(body)
    changed = cap(surface, body, most)
    assert changed or set(body) <= set(before)
    return body


@pytest.mark.parametrize(
    ("surface", "body", "after"),
    [
        (S.CHAT, {}, {"max_tokens": 100}),
        (S.CHAT, {"max_tokens": 100}, {"max_tokens": 100}),
        (S.CHAT, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        (S.CHAT, {"max_completion_tokens": 7.0}, {"max_completion_tokens": 7}),
        (S.CHAT, {"max_tokens": None, "max_completion_tokens": None}, {"max_tokens": 100}),
        (S.CHAT, {"max_tokens": 5, "n_predict": -1}, {"max_tokens": 5}),
        (S.CHAT, {"n_predict": 9}, {"n_predict": 9}),
        (S.COMPLETIONS, {"max_tokens": 0}, {"max_tokens": 0}),
        (S.COMPLETIONS, {"n_predict": -1}, {"max_tokens": 100}),
        (S.RESPONSES, {}, {"max_output_tokens": 100}),
        (S.RESPONSES, {"max_output_tokens": 20}, {"max_output_tokens": 20}),
        (S.MESSAGES, {"max_tokens": 20}, {"max_tokens": 20}),
        (S.OLLAMA_CHAT, {}, {"options": {"num_predict": 100}}),
        (S.OLLAMA_CHAT, {"options": None}, {"options": {"num_predict": 100}}),
        (S.OLLAMA_CHAT, {"options": {"num_predict": -1, "seed": 1}}, {"options": {"num_predict": 100, "seed": 1}}),
        (S.OLLAMA_GENERATE, {"options": {"num_predict": 50}}, {"options": {"num_predict": 50}}),
        (S.OLLAMA_GENERATE, {"options": {"num_predict": 0}}, {"options": {"num_predict": 100}}),
        (S.EMBEDDINGS, {"max_tokens": 900}, {"max_tokens": 900}),
    ],
)
def test_what_is_named_stays_and_what_is_open_is_set(
    surface: Surface, body: dict[str, Any], after: dict[str, Any]
) -> None:
    assert capped(surface, body) == after


@pytest.mark.parametrize(
    ("surface", "body", "param"),
    [
        (S.CHAT, {"max_tokens": 101}, "max_tokens"),
        (S.CHAT, {"max_tokens": 1, "max_completion_tokens": 101}, "max_completion_tokens"),
        (S.CHAT, {"max_tokens": 1, "n_predict": 5000}, "n_predict"),
        (S.COMPLETIONS, {"max_tokens": 10**30}, "max_tokens"),
        (S.RESPONSES, {"max_output_tokens": 101}, "max_output_tokens"),
        (S.MESSAGES, {"max_tokens": 101}, "max_tokens"),
        (S.MESSAGES, {"max_tokens": 1, "n_predict": 101}, "n_predict"),
        (S.OLLAMA_CHAT, {"options": {"num_predict": 101}}, "options.num_predict"),
    ],
)
def test_more_is_refused_and_the_field_is_named(surface: Surface, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest, match="is more than the 100 tokens that an answer may have here") as caught:
        cap(surface, body, 100)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize("value", ["9999", "5", True, 5.5, [5], {"a": 1}])
def test_what_is_no_whole_number_is_refused_as_some_servers_would_read_it_as_one(value: object) -> None:
    with pytest.raises(BadRequest, match="must be a whole number"):
        cap(S.CHAT, {"max_tokens": value}, 100)
    with pytest.raises(BadRequest, match=r"options\.num_predict: must be a whole number"):
        cap(S.OLLAMA_CHAT, {"options": {"num_predict": value}}, 100)


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(BadRequest, match="options: must be an object"):
        cap(S.OLLAMA_CHAT, {"options": [1]}, 100)


def chat(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [], **fields})


def test_a_request_is_prepared_with_the_cap_of_its_model() -> None:
    caps = {"m": 64}
    made = prepare(S.CHAT, chat(), caps.get)
    assert (orjson.loads(made.body)["max_tokens"], made.capped) == (64, True)
    assert orjson.loads(for_cloud(made.body))["max_completion_tokens"] == 64
    assert b'"max_tokens"' not in for_cloud(made.body)
    free = prepare(S.CHAT, chat(model="other"), caps.get)
    assert (b"max_tokens" in free.body, free.capped) == (False, False)
    own = prepare(S.CHAT, chat(max_tokens=3), caps.get)
    assert (orjson.loads(own.body)["max_tokens"], own.capped) == (3, False)
    with pytest.raises(BadRequest):
        prepare_crossed(S.CHAT, chat(max_tokens=65), (), caps.get)


def test_a_second_spelling_in_another_case_does_not_get_around_it() -> None:
    """Servers in Go take keys in any case."""
    made = orjson.loads(prepare(S.CHAT, chat(Max_Tokens=9999, MAX_COMPLETION_TOKENS=9999), lambda _model: 64).body)
    assert [(name, value) for name, value in made.items() if "tokens" in name.lower()] == [("max_tokens", 64)]
    body = orjson.dumps({"model": "m", "prompt": "p", "Options": {"num_predict": 9999}})
    made = orjson.loads(prepare(S.OLLAMA_GENERATE, body, lambda _model: 64).body)
    assert (made["options"], "Options" in made) == ({"num_predict": 64}, False)


def test_a_session_has_the_cap_in_what_edge_adds_not_the_client() -> None:
    wanted = read({"message": "hi", "max_tokens": 9999})
    body = prepared(wanted, [], 100, 0.0, 64).body
    assert parse(orjson.loads(body)).max_tokens == 64
    assert parse(orjson.loads(prepared(wanted, [], 100, 0.0).body)).max_tokens is None
