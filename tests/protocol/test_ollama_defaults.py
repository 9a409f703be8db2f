"""A request for Ollama gets what it leaves open, and keeps what it names."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import BadRequest
from edge.protocol.ollama_defaults import Defaults, with_defaults, write

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5), lambda x: st.lists(x, max_size=3)
)
NAMES = st.sampled_from(["num_ctx", "temperature", '"},"'])
OPTIONS = st.none() | st.dictionaries(NAMES, st.integers(1, 9), max_size=3)
FIELDS = st.sampled_from(["model", "messages", "tools", "stream"])
BODIES = st.builds(
    lambda rest, named, options: {**rest, **named, **({} if options == "absent" else {"options": options})},
    st.dictionaries(FIELDS, JSON, max_size=4),
    st.dictionaries(st.sampled_from(["keep_alive", "truncate"]), st.none() | st.booleans(), max_size=2),
    st.just("absent") | OPTIONS,
)
KEPT, CUT = st.sampled_from([None, "5m", -1]), st.sampled_from([None, False])
DEFAULTS = st.builds(Defaults, st.sampled_from([0, 512]), KEPT, CUT)


@given(BODIES, DEFAULTS)
def test_what_is_named_holds_and_what_is_open_is_filled(body: dict[str, Any], defaults: Defaults) -> None:
    written, named = write(body)
    sent = orjson.loads(with_defaults(written, named, defaults))
    options = body.get("options") or {}
    assert (sent.get("options") or {}) == ({"num_ctx": defaults.num_ctx} if defaults.num_ctx else {}) | options
    for name in ("keep_alive", "truncate"):
        given_value = body.get(name)
        assert sent.get(name) == (getattr(defaults, name) if given_value is None else given_value)
    for name, value in body.items():
        if name not in ("options", "keep_alive", "truncate"):
            assert sent.get(name) == value


def test_nothing_to_fill_changes_nothing() -> None:
    written, named = write({"model": "m", "options": {"num_ctx": 1}})
    assert with_defaults(written, named, Defaults(512)) == written


def test_options_that_are_no_object_are_refused() -> None:
    with pytest.raises(BadRequest, match="options: must be an object"):
        write({"options": [1]})
