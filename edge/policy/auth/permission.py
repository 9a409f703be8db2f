"""What a principal may do: which models it may ask, and what takes an admin.

In: a principal, and what it wants. Out: nothing, or Forbidden. Must not: touch an upstream, or reveal to a principal
models that it may not use.

A name that is allowed is not enough where a server answers whatever name it is asked by: there the models that it has
must be allowed as well.
"""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Protocol

from edge.errors import Forbidden, NotFound
from edge.policy.auth.principal import Principal
from edge.policy.model_names import Globs
from edge.policy.routing import printable


class Server(Protocol):
    """What must be known of an upstream."""

    models: frozenset[str]
    any_model: bool


def may_use(principal: Principal, model: str) -> bool:
    """Whether the principal may use a model of this name, as an upstream lists it.

    A name with a tag is an Ollama's, which ignores case and has defaults (see ``model_names``). Any other must
    be spelled as the key has it; its ``:latest`` is what Ollama's clients make of it.
    """
    if principal.models is None:
        return True
    if ":" in model:
        return _globs(principal.models).fit(model)
    return any(fnmatchcase(name, glob) for glob in principal.models for name in (model, model + ":latest"))


def check_model(principal: Principal, model: str | None, servers: Iterable[Server]) -> None:
    """Let the request pass if the principal may use the model.

    Args:
        principal: Who asks.
        model: As the request names it; None if it names none.
        servers: All that might be asked.

    Raises:
        Forbidden: it may not.
        NotFound: it may, but there is no such model.
    """
    if principal.models is None:
        return
    if model is None:
        raise Forbidden(
            "model: required, as this key may use some models only", code="model_not_allowed", param="model"
        )
    every = list(servers)
    if not may_use(principal, model) or not _is_it(principal, model, every):
        raise Forbidden(f"this key may not use the model '{printable(model)}'", code="model_not_allowed", param="model")
    if len(every) > 1 and not any(model in server.models or server.any_model for server in every):
        # Routing would find the same, and name those that there are.
        raise NotFound(f"the model '{printable(model)}' does not exist", code="model_not_found", param="model")


@lru_cache(maxsize=1024)
def _globs(models: tuple[str, ...]) -> Globs:
    """Compiled once for each list: a list of models asks for every entry."""
    return Globs(models)


def check_admin(principal: Principal) -> None:
    """Let the request pass if it is an admin's.

    Raises:
        Forbidden: it is not.
    """
    if not principal.admin:
        raise Forbidden("this takes an admin's key (edge keys create --admin)", code="admin_required")


def _is_it(principal: Principal, model: str, servers: Collection[Server]) -> bool:
    """Whether the model that would answer is one that the principal may use, as far as that is known."""
    if any(model in server.models for server in servers):
        return True
    return all(may_use(principal, name) for server in servers if server.any_model for name in server.models)
