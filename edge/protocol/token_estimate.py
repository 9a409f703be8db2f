"""How many tokens a Messages request is, about: for upstreams that cannot count.

In: a canonical request. Out: a number. Must not: tokenise, or seem to: whoever answers with it says so.
"""

from collections.abc import Iterator

import orjson

from edge.protocol.canonical import Ask, ImagePart, Part, TextPart, ThinkingPart, ToolResultPart, ToolUsePart

_BYTES_PER_TOKEN = 4  # English text in current vocabularies
_PER_MESSAGE = 4  # its role and the marks around it
_PER_IMAGE = 1600  # Anthropic's own figure for one that is as large as it takes, about
_FEWEST = 1


def estimate(ask: Ask) -> int:
    """Tokens of system, messages and tools together."""
    parts = [part for message in ask.messages for part in message.parts]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(parts))
    tools = sum(len(orjson.dumps([tool.name, tool.description, tool.parameters])) for tool in ask.tools)
    fixed = _PER_MESSAGE * len(ask.messages) + _PER_IMAGE * sum(_images(parts))
    return max(_FEWEST, -(-(size + tools) // _BYTES_PER_TOKEN) + fixed)


def _texts(parts: list[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case TextPart(text) | ThinkingPart(text):
                yield text
            case ToolUsePart(_, name, arguments):
                yield name
                yield arguments
            case ToolResultPart(_, inner):
                yield from (one.text for one in inner if isinstance(one, TextPart))


def _images(parts: list[Part]) -> Iterator[int]:
    for part in parts:
        if isinstance(part, ImagePart):
            yield 1
        elif isinstance(part, ToolResultPart):
            yield sum(isinstance(one, ImagePart) for one in part.parts)
