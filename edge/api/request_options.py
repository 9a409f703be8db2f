"""What a request's headers and query ask of Edge itself: a lane, a stream to come back to, how its end may look.

In: a request, who sent it, and the settings. Out: each choice, or the default. Must not: act on any of them.
"""

from aiohttp import web

from edge.errors import BadRequest, Forbidden
from edge.policy.after_error import AfterError
from edge.policy.auth.principal import Principal
from edge.policy.queue.lanes import Lane
from edge.policy.routing import printable
from edge.settings import Stream as StreamSettings

_LANE = "x-edge-lane"
_AFTER_ERROR = "x-edge-after-error"
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


def last_event_id(request: web.Request) -> str | None:
    """What a reader says that comes back; an ``EventSource`` that has seen no id may send an empty one."""
    return request.headers.get("Last-Event-ID", "").strip() or None


def wants_resume(request: web.Request) -> bool:
    """Whether the client asks for a stream that it can come back to.

    Raises:
        BadRequest: it is not clear.
    """
    asked = flag("x-edge-resume", request.headers.get("x-edge-resume"))
    if asked is None and request.query_string:
        asked = flag("resume", request.query.get("resume"))
    return bool(asked)


def flag(name: str, text: str | None) -> bool | None:
    """What is said by 1 or 0; None if nothing is.

    Raises:
        BadRequest: it is not clear.
    """
    wanted = None if text is None else _FLAGS.get(text.strip().lower())
    if text is not None and wanted is None:
        raise BadRequest(f"{name}: must be 1 or 0, not {printable(text)!r}", param=name)
    return wanted


def lane_of(request: web.Request, principal: Principal) -> Lane:
    """The lane that the client chooses, or the first one that its key has; interactive if neither says.

    Raises:
        BadRequest: there is none of that name.
        Forbidden: the key is not for that lane.
    """
    text = request.headers.get(_LANE)
    if text is None:
        return Lane(principal.lanes[0]) if principal.lanes else Lane.INTERACTIVE
    allowed = principal.lanes or tuple(Lane)
    try:
        lane = Lane(text.strip().lower())
    except ValueError:
        lanes = " or ".join(Lane)
        raise BadRequest(f"{_LANE}: must be {lanes}, not {printable(text)!r}", param=_LANE) from None
    if lane not in allowed:
        raise Forbidden(f"{_LANE}: this key is not for {lane}, but for {' and '.join(allowed)}", param=_LANE)
    return lane


def after_error(request: web.BaseRequest, settings: StreamSettings) -> AfterError:
    """The client's choice, else the setting's.

    Raises:
        BadRequest: there is no such choice.
    """
    agent = request.headers.get("User-Agent", "")
    text = request.headers.get(_AFTER_ERROR)
    match None if text is None else text.strip().lower():
        case None:
            return AfterError(settings.after_error, agent)
        case ("auto" | "reset" | "close") as choice:
            return AfterError(choice, agent)
    raise BadRequest(f"{_AFTER_ERROR}: must be auto, reset or close, not {printable(text or '')!r}", param=_AFTER_ERROR)
