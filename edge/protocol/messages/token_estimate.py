"""How many tokens a Messages request has, about, where no upstream counts them.

In: the body of a request to count. Out: a number. Must not: tokenise, or pass for a count: whoever gives it on says
what it is.
"""

from collections.abc import Iterator

from edge.protocol.canonical import (
    ImagePart,
    Part,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
    UnsupportedPart,
)
from edge.protocol.fields import Fields
from edge.protocol.json_text import dumps, loads
from edge.protocol.messages.parse import conversation

# Of UTF-8: four characters of English, one or two of the scripts that take about as many tokens.
_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4  # its role and what stands around it
_PER_TOOL = 12  # likewise
_PER_IMAGE = 1600  # the most that Anthropic counts for one


def estimate(body: bytes) -> int:
    """The number.

    Raises:
        BadRequest: a field is malformed, or holds what only Anthropic could read.
    """
    messages, tools = conversation(Fields(loads(body)))
    tokens = _PER_MESSAGE * len(messages) + _PER_TOOL * len(tools)
    texts = [tool.name + (tool.description or "") for tool in tools]
    size = sum(len(dumps(tool.parameters)) for tool in tools)
    for message in messages:
        for part in message.parts:
            for fields in _countable(part):
                if isinstance(fields, ImagePart):
                    tokens += _PER_IMAGE
                else:
                    texts.append(fields)
    size += sum(len(text.encode()) for text in texts)
    return tokens + -(-size // _BYTES_PER_TOKEN)


def _countable(part: Part) -> Iterator[str | ImagePart]:
    match part:
        case TextPart(text) | ThinkingPart(text):
            yield text
        case ImagePart():
            yield part
        case ToolUsePart(_, name, arguments):
            yield name + arguments
        case ToolResultPart(_, parts):
            for held in parts:
                yield from _countable(held)
        case UnsupportedPart():
            return  # it is left out of a translated request too
