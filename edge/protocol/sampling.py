"""The fields of sampling that several surfaces have under the same names.

In: fields of a body. Out: the same in an ``Ask``. Must not: know a surface.
"""

from edge.protocol.canonical import (
    Ask,
)
from edge.protocol.fields import Fields


def read_sampling(fields: Fields, ask: Ask) -> None:
    """Read what all of OpenAI's generating requests spell alike, and what Ollama's clients put beside it.

    Raises:
        BadRequest: a field is malformed.
    """
    ask.temperature = fields.number("temperature", 0)
    ask.top_p = fields.number("top_p", 0, 1)
    ask.top_k = fields.whole("top_k")
    ask.min_p = fields.number("min_p", 0, 1)
    ask.seed = fields.whole("seed")
    ask.stop = fields.texts("stop")
    ask.presence_penalty = fields.number("presence_penalty")
    ask.frequency_penalty = fields.number("frequency_penalty")
    ask.user = fields.text("user")
    ask.keep_alive = fields.any("keep_alive")
    options = fields.object("options")
    ask.options = {} if options is None else options.body
