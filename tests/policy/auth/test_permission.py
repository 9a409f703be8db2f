"""Which models a principal may use, whatever they are called and whoever would answer."""

from dataclasses import dataclass

import pytest

from edge.errors import Forbidden, NotFound
from edge.policy.auth.permission import check_admin, check_model, may_use
from edge.policy.auth.principal import ANONYMOUS, Principal

ANYBODY = Principal("a")


@dataclass
class Server:
    models: frozenset[str]
    any_model: bool = False


def only(*globs: str) -> Principal:
    return Principal("a", models=globs)


@pytest.mark.parametrize(
    ("globs", "model", "may"),
    [
        (("llama*",), "llama3.2:1b", True),
        (("llama*",), "Llama3", False),
        (("llama3",), "llama3", True),
        (("llama3",), "llama3:latest", True),
        (("llama3:latest",), "llama3", True),
        (("llama3",), "llama3:8b", False),
        (("*/small-?",), "org/small-1", True),
        (("*/small-?",), "org/small-12", False),
        (("q[wx]en",), "qxen", True),
        ((), "m", False),
        (("*",), "anything/at:all", True),
        (("m",), "m\n", False),
        (("m",), "", False),
    ],
)
def test_names_and_globs(globs, model, may) -> None:
    assert may_use(only(*globs), model) is may


def test_without_a_list_everything_may_be_used_and_nothing_need_be_named() -> None:
    check_model(ANYBODY, None, [])
    check_model(ANYBODY, "m", [])
    assert may_use(ANYBODY, "m")


@pytest.mark.parametrize("model", ["big", "", "SMALL", "sm\x00all"])
def test_another_model_is_forbidden_by_name(model) -> None:
    with pytest.raises(Forbidden) as caught:
        check_model(only("small*"), model, [Server(frozenset({"small", "big"}))])
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "model_not_allowed", "model")
    assert "big" not in caught.value.message.replace(f"'{model}'", "")


def test_a_request_that_names_none_is_told_to() -> None:
    with pytest.raises(Forbidden, match="model: required"):
        check_model(only("small"), None, [Server(frozenset({"small"}))])


def test_a_server_that_answers_any_name_is_judged_by_what_it_has() -> None:
    """An allowed name must not be a way to another model."""
    big = Server(frozenset({"big"}), any_model=True)
    with pytest.raises(Forbidden):
        check_model(only("small*"), "small-one", [big])
    check_model(only("small*"), "small-one", [big, Server(frozenset({"small-one"}))])
    check_model(only("small*"), "small-one", [Server(frozenset({"small-two"}), any_model=True)])
    check_model(only("small*"), "small-one", [Server(frozenset(), any_model=True)])


def test_who_may_not_see_all_models_is_not_told_which_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        check_model(only("small*"), "small-x", [Server(frozenset({"secret-1"})), Server(frozenset({"secret-2"}))])
    assert caught.value.code == "model_not_found"
    assert "secret" not in caught.value.message


def test_admins() -> None:
    check_admin(ANONYMOUS)
    with pytest.raises(Forbidden) as caught:
        check_admin(ANYBODY)
    assert caught.value.code == "admin_required"
