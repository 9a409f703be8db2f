"""Toy requests: client → canonical."""

from edge.protocol.canonical import Ask, Message, TextPart
from edge.protocol.fields import Fields


def parse(body: dict[str, object]) -> Ask:
    """Read a request.

    Raises:
        BadRequest: ``say`` is no text.
    """
    fields = Fields(body)
    fields.known("stream")
    said = Message("user", (TextPart(fields.needed_text("say")),), "say")
    return Ask(model=fields.text("model"), messages=[said], ignored=list(fields.rest()))
