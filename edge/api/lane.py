"""How much hurry there is with a request, as far as its client says.

In: a request. Out: a lane. Must not: let anybody into one: that is admission's to decide.
"""

from aiohttp import web

from edge.errors import BadRequest, Forbidden
from edge.policy.auth.principal import Principal
from edge.policy.queue.lanes import Lane
from edge.policy.routing import printable

HEADER = "x-edge-lane"


def lane_of(request: web.Request, principal: Principal) -> Lane:
    """The lane that the client chooses, or the first one that its key has; interactive if neither says.

    Raises:
        BadRequest: there is none of that name.
        Forbidden: the key is not for that lane.
    """
    text = request.headers.get(HEADER)
    if text is None:
        return Lane(principal.lanes[0]) if principal.lanes else Lane.INTERACTIVE
    allowed = principal.lanes or tuple(Lane)
    try:
        lane = Lane(text.strip().lower())
    except ValueError:
        lanes = " or ".join(Lane)
        raise BadRequest(f"{HEADER}: must be {lanes}, not {printable(text)!r}", param=HEADER) from None
    if lane not in allowed:
        raise Forbidden(f"{HEADER}: this key is not for {lane}, but for {' and '.join(allowed)}", param=HEADER)
    return lane
