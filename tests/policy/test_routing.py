"""Which upstreams are tried, in which order, and what a client is told when there is none."""

from dataclasses import dataclass

import pytest

from edge.errors import BadRequest, NotFound, NoUpstream, Unsupported
from edge.policy.routing import SHOWN_CHARS, SHOWN_NAMES, default_model, route, uncounted
from edge.protocol.surface import Surface

CHAT, RESPONSES = Surface.CHAT, Surface.RESPONSES


@dataclass
class Server:
    name: str
    models: frozenset[str] = frozenset({"m"})
    surfaces: frozenset[Surface] = frozenset({CHAT})
    up: bool = True
    any_model: bool = False
    active: int = 0


def server(name: str, *models: str, **facts) -> Server:
    return Server(name, frozenset(models), **facts)


def names(servers: list[Server]) -> list[str]:
    return [s.name for s in servers]


def test_a_model_goes_to_the_less_busy_of_the_servers_that_list_it():
    there = [server("a", "m", active=3), server("other", "n"), server("b", "m", active=1)]
    assert names(route(CHAT, "m", there)) == ["b", "a"]


def test_equally_busy_servers_are_tried_in_the_configured_order():
    there = [server("b", "m", active=1), server("c", "m"), server("a", "m", active=1)]
    assert names(route(CHAT, "m", there)) == ["c", "b", "a"]


def test_servers_that_are_down_or_do_not_speak_the_surface_are_not_tried():
    there = [server("down", "m", up=False), server("mute", "m", surfaces=frozenset({RESPONSES})), server("good", "m")]
    assert names(route(CHAT, "m", there)) == ["good"]


def test_a_server_that_answers_any_name_does_not_stand_in_for_one_that_lists_the_model():
    there = [server("any", "x", any_model=True), server("exact", "m", active=9)]
    assert names(route(CHAT, "m", there)) == ["exact"]


def test_an_unknown_model_goes_to_those_that_answer_any_name():
    there = [server("a", "x", any_model=True, active=2), server("strict", "y"), server("b", any_model=True)]
    assert names(route(CHAT, "m", there)) == ["b", "a"]


def test_an_unknown_model_goes_to_the_only_server_there_is_whose_404_tells_the_truth():
    there = [server("only", "x"), server("down", "y", up=False), server("mute", "z", surfaces=frozenset({RESPONSES}))]
    assert names(route(CHAT, "m", there)) == ["only"]


def test_without_a_model_the_less_busy_server_comes_first():
    there = [server("a", "x", active=1), server("b", "y"), server("down", "z", up=False)]
    assert names(route(CHAT, None, there)) == ["b", "a"]


def test_a_model_that_nobody_has_is_not_found_and_the_answer_names_what_there_is():
    with pytest.raises(NotFound) as caught:
        route(CHAT, "m", [server("a", "x"), server("b", "z", "y")])
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message == "the model 'm' does not exist; there are: x, y, z"


def test_a_foreign_name_in_a_message_is_bounded_and_printable():
    many = [f"model-{i:03}" for i in range(50)]
    with pytest.raises(NotFound) as caught:
        route(CHAT, "\x1b[31m\n" + "A" * 10_000, [server("a", *many), server("b", "\x00" + "z" * 10_000)])
    message = caught.value.message
    assert message.isprintable()
    assert "'?[31m?AAA" in message
    assert f"and {51 - SHOWN_NAMES} more" in message
    assert len(message) < (SHOWN_NAMES + 2) * (SHOWN_CHARS + 10)


def test_before_any_server_was_found_that_is_what_is_said():
    with pytest.raises(NoUpstream, match="no model server has been found yet"):
        route(CHAT, "m", [])


def test_when_no_server_is_up_they_are_named():
    with pytest.raises(NoUpstream, match="no upstream is up: a, b"):
        route(CHAT, "m", [server("a", "m", up=False), server("b", "n", up=False)])


def test_a_model_whose_only_server_is_down_is_not_answered_by_another_model():
    there = [server("its-own", "m", up=False), server("any", "x", any_model=True)]
    with pytest.raises(NoUpstream, match="'m' is served by its-own, which is not up"):
        route(CHAT, "m", there)


def test_a_surface_that_nobody_speaks_is_unsupported_and_the_answer_says_what_is_spoken():
    with pytest.raises(Unsupported) as caught:
        route(RESPONSES, "m", [server("a", "m"), server("b", surfaces=frozenset({CHAT, Surface.MESSAGES}))])
    assert "speaks responses: a speaks chat; b speaks chat, messages" in caught.value.message


def test_a_surface_that_the_models_own_server_does_not_speak_is_unsupported():
    there = [server("its-own", "m"), server("fluent", "x", surfaces=frozenset({RESPONSES}), any_model=True)]
    with pytest.raises(Unsupported, match=r"its-own speaks chat$"):
        route(RESPONSES, "m", there)


def test_the_only_model_is_the_one_that_is_meant():
    """Of those that could answer: what is down or mute does not count, and two may have the same."""
    mute = server("mute", "z", surfaces=frozenset({RESPONSES}))
    assert default_model(CHAT, [server("a", "m"), server("b", "m"), server("down", "y", up=False), mute]) == "m"


def test_where_nobody_lists_a_model_none_is_meant():
    assert default_model(CHAT, [server("a")]) is None
    assert default_model(CHAT, []) is None


def test_of_several_models_one_has_to_be_named():
    with pytest.raises(BadRequest) as raised:
        default_model(CHAT, [server("a", "y\n", "x"), server("b", "z")])
    assert raised.value.param == "model"
    assert raised.value.message == "model: required, as there are several: x, y?, z"


# --- whether tokens are estimated -----------------------------------------------------------------------------------

CLAUDE = frozenset({Surface.MESSAGES, Surface.COUNT_TOKENS})
TOLD = frozenset({CHAT, Surface.MESSAGES})


@pytest.mark.parametrize(
    ("there", "estimated"),
    [
        ([server("a", "m", surfaces=TOLD)], True),
        ([server("a", "m", surfaces=CLAUDE)], False),
        ([server("a", "m", surfaces=TOLD), server("b", "m", surfaces=CLAUDE)], False),
        ([server("a", "m", surfaces=TOLD), server("other", "n", surfaces=CLAUDE, any_model=True)], True),
        ([server("a", "m", surfaces=TOLD), server("down", "m", surfaces=CLAUDE, up=False)], True),
        ([server("mute", "m")], False),
        ([server("down", "m", surfaces=TOLD, up=False)], False),
        ([], False),
    ],
)
def test_tokens_are_estimated_if_nobody_who_has_the_model_counts(there, estimated):
    assert uncounted("m", there) is estimated


def test_nothing_is_estimated_for_a_model_that_nobody_has():
    with pytest.raises(NotFound):
        uncounted("x", [server("a", "m", surfaces=TOLD), server("b", "n", surfaces=TOLD)])
