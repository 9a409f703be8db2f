"""The output items of a response as they grow: each makes its own events, from ``added`` to ``done``.

In: pieces of text, thought and arguments. Out: events, through ``emit``; and at the end the whole item.
Must not: know what else is in the response.
"""

from collections.abc import Callable
from typing import Any, Literal

import orjson
from typing_extensions import override

from edge.protocol.json_text import loads
from edge.protocol.responses.reasoning import seal
from edge.protocol.responses.tools import CUSTOM_INPUT, Spelling
from edge.protocol.sse import encode
from edge.protocol.transcode_ports import MARK

Json = dict[str, Any]
Status = Literal["completed", "incomplete"]
Emit = Callable[[str, Json], None]  # the type of an event, and its fields

# Of each kind of content part: what its events begin with, its field, and what its text events carry besides.
_PARTS: dict[str, tuple[str, str, Json]] = {
    "output_text": ("response.output_text", "text", {"logprobs": []}),
    "refusal": ("response.refusal", "refusal", {}),
    "reasoning_text": ("response.reasoning_text", "text", {}),
}
_ANNOTATIONS = ("url_citation", "file_citation", "container_file_citation", "file_path")


class Item:
    """An item that has been added and is not done."""

    __slots__ = ()

    index: int  # in the output

    def close(self, status: Status) -> Json:
        """Tell the rest of it; the item as it stays."""
        raise NotImplementedError


class Spoken(Item):
    """A message, or what is like it: an item of content parts, one at a time."""

    def __init__(self, emit: Emit, index: int, item: Json) -> None:
        self.index = index
        self._emit = emit
        self._item = item
        self._parts: list[Json] = []  # those that are done
        self._kind = ""  # of the part that is open
        self._pieces: list[str] = []
        self._annotations: list[Json] = []
        self._at: Json = {}
        self._around: tuple[bytes, bytes, bytes] | None = None  # of a piece's number and its text
        self._name, self._field, self._besides = "", "", Json()
        emit("response.output_item.added", {"output_index": index, "item": {**item, "content": []}})

    def add(self, kind: str, piece: str) -> None:
        """A piece of a part's text."""
        if kind != self._kind:
            self._open(kind)
        self._pieces.append(piece)
        self._emit(self._name + ".delta", {**self._at, "delta": piece, **self._besides})

    def plain(self, kind: str, escaped: bytes) -> tuple[bytes, bytes, bytes] | None:
        """The same for a piece that is escaped: what its event has before and after its number, and after the text.

        None if another part is open, or the piece is no text, which is for whoever feeds it to emit.
        """
        if kind != self._kind:
            return None
        try:
            self._pieces.append(orjson.loads(b'"%b"' % escaped))
        except orjson.JSONDecodeError:
            return None
        if self._around is None:
            name = self._name + ".delta"
            event = encode({"type": name, "sequence_number": 0, **self._at, "delta": MARK, **self._besides}, name)
            before, after = event.rsplit(MARK.encode(), 1)
            head, middle = before.split(b'"sequence_number":0', 1)
            self._around = head + b'"sequence_number":', middle, after
        return self._around

    def annotate(self, annotation: Json) -> None:
        """Of the text that is being said; what the surface has no shape for is not shown."""
        kind = annotation.get("type")
        if kind not in _ANNOTATIONS:
            return
        if self._kind != "output_text":
            self._open("output_text")
        inner = annotation.get(kind)  # where chat completions keep it
        shown = {"type": kind, **inner} if isinstance(inner, dict) else annotation
        number = len(self._annotations)
        self._annotations.append(shown)
        self._emit(
            "response.output_text.annotation.added", {**self._at, "annotation_index": number, "annotation": shown}
        )

    @override
    def close(self, status: Status) -> Json:
        self._close_part()
        whole = {**self._item, "status": status, "content": self._parts}
        self._emit("response.output_item.done", {"output_index": self.index, "item": whole})
        return whole

    def _open(self, kind: str) -> None:
        self._close_part()
        self._kind = kind
        self._name, self._field, self._besides = _PARTS[kind]
        self._pieces, self._annotations, self._around = [], [], None
        self._at = {"item_id": self._item["id"], "output_index": self.index, "content_index": len(self._parts)}
        self._emit("response.content_part.added", {**self._at, "part": self._part("")})

    def _close_part(self) -> None:
        if not self._kind:
            return
        text = "".join(self._pieces)
        part = self._part(text)
        self._emit(self._name + ".done", {**self._at, self._field: text, **self._besides})
        self._emit("response.content_part.done", {**self._at, "part": part})
        self._parts.append(part)
        self._kind = ""

    def _part(self, text: str) -> Json:
        part: Json = {"type": self._kind, self._field: text}
        if self._kind == "output_text":
            part |= {"annotations": [*self._annotations], "logprobs": []}
        return part


class Thought(Spoken):
    """A thought: whole as content, with no summary of it.

    Attributes:
        signature: The provider's, over the whole of it.
    """

    def __init__(self, emit: Emit, index: int, item: Json, *, sealed: bool) -> None:
        super().__init__(emit, index, item)
        self.signature = ""
        self._sealed = sealed

    @override
    def close(self, status: Status) -> Json:
        self._close_part()
        if self._sealed:
            text = "".join(part["text"] for part in self._parts)
            self._item["encrypted_content"] = seal(text, self.signature)
        return super().close(status)


class Called(Item):
    """A function call."""

    def __init__(self, emit: Emit, index: int, item: Json) -> None:
        self.index = index
        self._emit = emit
        self._item = item
        self._pieces: list[str] = []
        self._at = {"item_id": item["id"], "output_index": index}
        emit("response.output_item.added", {"output_index": index, "item": item})

    def add(self, piece: str) -> None:
        """A piece of its arguments."""
        self._pieces.append(piece)
        self._emit("response.function_call_arguments.delta", {**self._at, "delta": piece})

    @override
    def close(self, status: Status) -> Json:
        arguments = "".join(self._pieces)
        whole = {**self._item, "status": status, "arguments": arguments}
        done = {**self._at, "name": whole["name"], "arguments": arguments}
        self._emit("response.function_call_arguments.done", done)
        self._emit("response.output_item.done", {"output_index": self.index, "item": whole})
        return whole


class CalledWithText(Item):
    """A call of a custom tool, which was offered as a function: its text goes out once the arguments are whole."""

    def __init__(self, emit: Emit, index: int, item: Json) -> None:
        self.index = index
        self._emit = emit
        self._item = item
        self._pieces: list[str] = []
        emit("response.output_item.added", {"output_index": index, "item": item})

    def add(self, piece: str) -> None:
        """A piece of the function's arguments."""
        self._pieces.append(piece)

    @override
    def close(self, status: Status) -> Json:
        text = _typed("".join(self._pieces))
        at = {"item_id": self._item["id"], "output_index": self.index}
        whole = {**self._item, "status": status, "input": text}
        self._emit("response.custom_tool_call_input.delta", {**at, "delta": text})
        self._emit("response.custom_tool_call_input.done", {**at, "input": text})
        self._emit("response.output_item.done", {"output_index": self.index, "item": whole})
        return whole


def message(emit: Emit, index: int, identity: str) -> Spoken:
    """A message of the model begins."""
    head = {"id": f"msg_{identity}", "type": "message", "role": "assistant", "status": "in_progress"}
    return Spoken(emit, index, head)


def reasoning(emit: Emit, index: int, identity: str, *, sealed: bool) -> Thought:
    """A thought begins; ``sealed``: the client wants to send it back."""
    head = {"id": f"rs_{identity}", "type": "reasoning", "status": "in_progress", "summary": []}
    return Thought(emit, index, head, sealed=sealed)


def call(emit: Emit, index: int, identity: str, call_id: str, spelling: Spelling) -> Called | CalledWithText:
    """A call begins."""
    head: Json = {"status": "in_progress", "call_id": call_id, "name": spelling.name}
    if spelling.namespace:
        head["namespace"] = spelling.namespace
    if spelling.custom:
        return CalledWithText(emit, index, {"id": f"ctc_{identity}", "type": "custom_tool_call", **head, "input": ""})
    return Called(emit, index, {"id": f"fc_{identity}", "type": "function_call", **head, "arguments": ""})


def _typed(arguments: str) -> str:
    """The text in a function's arguments; a model that wrote something else is taken at its word."""
    try:
        decoded = loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = decoded.get(CUSTOM_INPUT) if isinstance(decoded, dict) else None
    return text if isinstance(text, str) else arguments
