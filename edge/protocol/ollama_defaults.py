"""What an Ollama upstream's settings add to requests that are relayed to it: what the client leaves open.

In: a checked body; then an upstream's settings. Out: the bytes to write, and those bytes with more fields in them. Must
not: change what the client has named, or decode a body again (it may hold images of many megabytes).

Ollama loads a model anew for each other ``num_ctx``. Two clients, one on ``/v1`` and one on ``/api``, would make it do
so at each turn if the setting held for one of them alone.
"""

from dataclasses import dataclass
from typing import Any

from edge.errors import BadRequest
from edge.protocol.json_text import dumps

_OPTIONS = b'{"options":'


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an upstream's settings ask for; 0 and None leave it to the server.

    Attributes:
        keep_alive: As Ollama takes it: text with units, or seconds.
        truncate: False makes it refuse a prompt that it would cut.
    """

    num_ctx: int = 0
    keep_alive: str | int | None = None
    truncate: bool | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """What a request for Ollama names itself, of the fields that have defaults.

    Attributes:
        options: Its ``options``, which are the first field of the body that was written; None if it has none.
        fields: Which of the other fields it names.
        tools: It offers tools.
    """

    options: dict[str, Any] | None
    fields: frozenset[str]
    tools: bool

    @property
    def num_ctx(self) -> int:
        """The context length that it asks for; 0 if it asks for none."""
        asked = (self.options or {}).get("num_ctx")
        return asked if isinstance(asked, int) else 0


def write(body: dict[str, Any]) -> tuple[bytes, Named]:
    """The body as bytes, made so that ``with_defaults`` can add to it.

    Raises:
        BadRequest: ``options`` is no object.
    """
    options = body.get("options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("options: must be an object", param="options")
    fields = frozenset(name for name in ("keep_alive", "truncate") if body.get(name) is not None)
    # A field that is null is none, and would come after its own default and undo it.
    rest = {name: value for name, value in body.items() if name != "options" and (value is not None or name in fields)}
    written = rest if options is None else {"options": options, **rest}
    return dumps(written), Named(options, fields, bool(body.get("tools")))


def with_defaults(written: bytes, named: Named, defaults: Defaults) -> bytes:
    """The body with what it leaves open."""
    head: dict[str, Any] = {}
    if defaults.num_ctx and "num_ctx" not in (named.options or {}):
        head["options"] = {"num_ctx": defaults.num_ctx, **(named.options or {})}
    for name in ("keep_alive", "truncate"):
        if (value := getattr(defaults, name)) is not None and name not in named.fields:
            head[name] = value
    if not head:
        return written
    start = 1
    if named.options is not None and "options" in head:
        start = len(_OPTIONS) + len(dumps(named.options))
        start += written[start : start + 1] == b","
    rest = written[start:]
    return dumps(head)[:-1] + (b"" if rest == b"}" else b",") + rest
