"""How many tokens an answer may have at the most: looked up in a request, and set where the request names nothing.

In: a request's body, and the cap. Out: the body with a limit in it that is not above the cap. Must not: clamp: a client
that asks for more gets an error, rather than be cut off in the middle and wonder why.

Every name that a server of the surface reads is looked at: llama.cpp takes its own ``n_predict`` in any body, before
the surface's field.
"""

from typing import Any

from edge.errors import BadRequest
from edge.protocol.json_text import dumps, loads
from edge.protocol.surface import Surface

_CHAT = ("max_tokens", "max_completion_tokens", "n_predict")
# By surface: the names, the one to be set first.
_NAMES: dict[Surface, tuple[str, ...]] = {
    Surface.CHAT: _CHAT,
    Surface.COMPLETIONS: _CHAT,
    Surface.RESPONSES: ("max_output_tokens", "n_predict"),
    Surface.MESSAGES: ("max_tokens", "n_predict"),
}
_OLLAMA = (Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE)
# What is looked at: servers in Go take keys in any case, and the last one wins.
NAMES = frozenset({*_CHAT, "max_output_tokens", "options"})


def cap(surface: Surface, body: dict[str, Any], most: int) -> bool:
    """See to it that the answer has ``most`` tokens at the most; whether that had to be put into the body.

    Raises:
        BadRequest: it asks for more, or not for a number.
    """
    if surface in _OLLAMA:
        return _cap_ollama(body, most)
    names = _NAMES.get(surface)
    if names is None:
        return False
    named = [name for name in names if _named(body, name, most)]
    for name in names:
        if name not in named:
            body.pop(name, None)  # null, or llama.cpp's -1: no limit
    if named:
        return False
    body[names[0]] = most
    return True


def _cap_ollama(body: dict[str, Any], most: int) -> bool:
    options = body.get("options")
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise BadRequest("options: must be an object", param="options")
    if _named(options, "num_predict", most, "options."):
        return False
    body["options"] = {**options, "num_predict": most}
    return True


def _named(body: dict[str, Any], name: str, most: int, path: str = "") -> bool:
    """Whether the request names a limit there."""
    value = body.get(name)
    if value is None:
        return False
    if isinstance(value, float) and value.is_integer():
        value = body[name] = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{path}{name}: must be a whole number", param=path + name)
    if value > most:
        raise BadRequest(
            f"{path}{name}: {value} is more than the {most} tokens that an answer may have here; "
            "ask for less, or leave it out",
            param=path + name,
        )
    return value > 0 or (value == 0 and not path)


def for_cloud(body: bytes) -> bytes:
    """A chat request with the limit that ``cap`` has put into it, in the words of OpenAI's own service.

    Model servers know ``max_tokens``; OpenAI's newer models refuse that.
    """
    asked = loads(body)
    asked["max_completion_tokens"] = asked.pop("max_tokens")
    return dumps(asked)
