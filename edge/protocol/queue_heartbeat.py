"""What a client sees while its request waits for a slot: where it stands, in a form that no reader trips over.

In: a heartbeat of the client's surface, and a place in the queue. Out: one heartbeat. Must not: know the queue, or tell
anything in an event that a client could take for a part of the answer.

Where heartbeats are comments, the comment tells; a ``keepalive`` of Responses has one in it. Elsewhere they are what
they always are: a ping of Messages and a line of Ollama have no place for it, and clients show what they do not know.
"""

import math

_KEEPALIVE = b"event: keepalive\n"


def comment(position: int, estimate_s: float | None) -> bytes:
    """``: queued 3, about 12 s``.

    Args:
        position: From 1 on.
        estimate_s: About how long it will take; None = not known.
    """
    about = "" if estimate_s is None else f", about {max(1, math.ceil(estimate_s))} s"
    return f": queued {position}{about}\n\n".encode()


def heartbeat(beat: bytes, position: int, estimate_s: float | None) -> bytes:
    """The heartbeat that is due, with the place in it if there is room.

    Args:
        beat: As it would be without a queue.
        position: See ``comment``.
        estimate_s: Likewise.
    """
    told = comment(position, estimate_s)
    if beat.startswith(b":"):
        return told
    return beat[:-1] + told if beat.startswith(_KEEPALIVE) else beat
