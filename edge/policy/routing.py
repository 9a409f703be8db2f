"""Which upstreams may be tried for a request, best first.

In: the surface, the model as the client wrote it, and what is known of each upstream. Out: a list that is never empty,
or the error that says why there is nobody. Must not: remember, log, or prefer an upstream by its name.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from edge.errors import BadRequest, EdgeError, NotFound, NoUpstream, Unsupported
from edge.protocol.surface import RELAYED, Surface

SHOWN_CHARS = 100  # of a name that somebody else chose, in a message
SHOWN_NAMES = 8


class Candidate(Protocol):
    """What routing needs to know of an upstream.

    Attributes:
        models: Names of the models it lists; still those of its last list while it is down.
        up: It answered the last look.
        any_model: It answers whatever model is named (one model, or it lists none).
        active: Requests of ours that it is working on.
    """

    name: str
    surfaces: frozenset[Surface]
    models: frozenset[str]
    up: bool
    any_model: bool
    active: int


C = TypeVar("C", bound=Candidate)


def route(surface: Surface, model: str | None, candidates: Sequence[C]) -> list[C]:
    """All upstreams that may be tried, the less busy first, in the configured order among equals.

    An upstream that lists the model always wins over one that answers any name: the latter has another model.

    Raises:
        NoUpstream: there is none, none is up, or the only ones that list the model are down.
        Unsupported: none that is up (and lists the model) speaks the surface.
        NotFound: nobody lists the model, and more than one upstream could be meant.
    """
    up = _up(candidates)
    speaking = [c for c in up if surface in c.surfaces]
    if not speaking:
        raise _unspoken(surface, up)
    if model is None:
        return _least_busy_first(speaking)
    listing = [c for c in speaking if model in c.models]
    if listing:
        return _least_busy_first(listing)
    _refuse_if_known_elsewhere(surface, model, candidates)
    willing = [c for c in speaking if c.any_model]
    if willing:
        return _least_busy_first(willing)
    if len(speaking) == 1:
        return speaking  # its own 404 is true, and in its own words
    there = _names(sorted({name for c in speaking for name in c.models}))
    raise NotFound(
        f"the model '{printable(model)}' does not exist; there are: {there}", param="model", code="model_not_found"
    )


def default_model(
    surface: Surface, candidates: Iterable[C], may_use: Callable[[str], bool] = lambda _model: True
) -> str | None:
    """The model for a request that names none: the only one there is; None if nobody lists any.

    Args:
        surface: Where it is asked for.
        candidates: All upstreams.
        may_use: Whether whoever asks may use a model; any other is not there for them.

    Raises:
        BadRequest: there are several.
    """
    there = sorted({name for c in candidates if c.up and surface in c.surfaces for name in c.models if may_use(name)})
    if len(there) > 1:
        raise BadRequest(f"model: required, as there are several: {_names(there)}", param="model")
    return there[0] if there else None


def uncounted(model: str | None, candidates: Sequence[C]) -> bool:
    """Whether the tokens of a message are to be estimated: its model can be asked, but nobody who has it counts.

    Raises:
        NotFound: nobody has the model either.
        NoUpstream: it is not up.
    """
    if not _unspoken_by_all(Surface.COUNT_TOKENS, model, candidates):
        return False  # routing the count itself has whatever else there is to say
    try:
        route(Surface.MESSAGES, model, candidates)
    except Unsupported:
        return False
    return True


def _unspoken_by_all(surface: Surface, model: str | None, candidates: Sequence[C]) -> bool:
    try:
        route(surface, model, candidates)
    except EdgeError as error:
        return isinstance(error, Unsupported)
    return False


def printable(text: str) -> str:
    """A foreign name, fit for a message: bounded, and without control characters."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:SHOWN_CHARS])
    return shown + "…" * (len(text) > SHOWN_CHARS)


def _up(candidates: Sequence[C]) -> list[C]:
    if not candidates:
        raise NoUpstream("no model server has been found yet; start one, and it will be used as soon as it answers")
    up = [c for c in candidates if c.up]
    if not up:
        raise NoUpstream(f"no upstream is up: {_names(c.name for c in candidates)}")
    return up


def _least_busy_first(candidates: Iterable[C]) -> list[C]:
    return sorted(candidates, key=lambda c: c.active)


def _refuse_if_known_elsewhere(surface: Surface, model: str, candidates: Iterable[C]) -> None:
    """The model is known, but not where it could be had now: say so, rather than let another model answer."""
    listing = [c for c in candidates if model in c.models]
    down = [c.name for c in listing if surface in c.surfaces]  # those that are up have been tried already
    if down:
        raise NoUpstream(f"the model '{printable(model)}' is served by {_names(down)}, which is not up")
    if listing:
        raise _unspoken(surface, listing)


def _unspoken(surface: Surface, candidates: Iterable[C]) -> Unsupported:
    if surface in RELAYED:
        named = _names(c.name for c in candidates)
        return Unsupported(f"{surface} is not among the routes that are relayed to {named}; see relay in [[upstream]]")
    spoken = "; ".join(f"{c.name} speaks {', '.join(sorted(c.surfaces)) or 'nothing'}" for c in candidates)
    return Unsupported(f"no upstream that could answer this speaks {surface}: {spoken}")


def _names(names: Iterable[str]) -> str:
    every = [printable(name) for name in names]
    more = len(every) - SHOWN_NAMES
    return ", ".join(every[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
