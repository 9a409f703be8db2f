"""What a client wants to follow an error event in its stream.

In: a request, and the setting. Out: what the end of the stream is decided by. Must not: decide.
"""

from aiohttp import web

from edge.errors import BadRequest
from edge.policy.after_error import AfterError
from edge.policy.routing import printable
from edge.settings import Stream as StreamSettings

HEADER = "x-edge-after-error"


def after_error(request: web.BaseRequest, settings: StreamSettings) -> AfterError:
    """The client's choice, else the setting's.

    Raises:
        BadRequest: there is no such choice.
    """
    agent = request.headers.get("User-Agent", "")
    text = request.headers.get(HEADER)
    match None if text is None else text.strip().lower():
        case None:
            return AfterError(settings.after_error, agent)
        case ("auto" | "reset" | "close") as choice:
            return AfterError(choice, agent)
    raise BadRequest(f"{HEADER}: must be auto, reset or close, not {printable(text or '')!r}", param=HEADER)
