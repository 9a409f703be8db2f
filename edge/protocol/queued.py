"""What a client sees while its request waits for a slot: where it stands, in a form that no reader trips over.

In: a place in the queue. Out: one heartbeat of the client's surface. Must not: know the queue, or tell anything in an
event that a client could take for a part of the answer.

Where heartbeats are comments, the comment tells. Elsewhere they are what they always are: a ping of Messages and a line
of Ollama have no place for it, and clients show what they do not know.
"""

import math

from edge.protocol.messages import PING
from edge.protocol.ollama import heartbeat_line
from edge.protocol.surface import OLLAMA, Surface


def comment(position: int, estimate_s: float | None) -> bytes:
    """``: queued 3, about 12 s``.

    Args:
        position: From 1 on.
        estimate_s: About how long it will take; None = not known.
    """
    about = "" if estimate_s is None else f", about {max(1, math.ceil(estimate_s))} s"
    return f": queued {position}{about}\n\n".encode()


def heartbeat(surface: Surface, model: str | None, position: int, estimate_s: float | None) -> bytes:
    """The heartbeat of a request that waits; nothing of its answer has gone out.

    Args:
        surface: The client's.
        model: As it asked for it.
        position: See ``comment``.
        estimate_s: Likewise.
    """
    if surface is Surface.MESSAGES:
        return PING
    if surface in OLLAMA:
        return heartbeat_line(surface, model or "")
    return comment(position, estimate_s)
