"""Canonical events as a Responses stream: numbered events around items, and one final event with the whole response.

In: canonical events. Out: the surface's events. Must not: number an event twice, or leave an item open.
Format: https://platform.openai.com/docs/api-reference/responses-streaming

Thoughts come as ``reasoning_text``, for that is what they are; no summary is made up of them.
"""

from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.dialect import Said
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reason,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.responses.encode_items import (
    Called,
    CalledWithText,
    Item,
    Json,
    Spoken,
    Status,
    Thought,
    call,
    message,
    reasoning,
)
from edge.protocol.responses.format import ResponsesFormat
from edge.protocol.responses.tools import Spelling
from edge.protocol.sse import encode
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat
from edge.protocol.transcode_ports import Answering, Encoder, Piece

_PART_OF: dict[Said, str] = {"text": "output_text", "thought": "reasoning_text"}
_INCOMPLETE: dict[Reason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesEncoder(Encoder):
    """A ``transcode_ports.Encoder`` of Responses events.

    Calls stay open until the end, since pieces of parallel ones may be interleaved; a message or a thought ends where
    another item begins.
    """

    format: type[SurfaceFormat] = ResponsesFormat

    def __init__(self, answering: Answering) -> None:
        self._id = answering.id
        self._head = _response(answering)
        self._sealed: bool = answering.echo["sealed"]
        self._spellings: dict[str, Spelling] = answering.echo["spellings"]
        self._made: list[Piece] = []
        self._begun = False  # the client already has a response.created
        self._number = 0  # of the next event
        self._output: dict[int, Json] = {}  # items that are done
        self._count = 0  # items that were added
        self._spoken: Spoken | Thought | None = None  # the message or thought that is open
        self._calls: dict[int, Called | CalledWithText] = {}
        self._call_ids: set[str] = set()
        self._reason: Reason = "stop"

    @override
    def add(self, event: Event) -> list[Piece]:
        match event:
            case Text(text):
                self._message().add("output_text", text)
            case Reasoning(text, signature):
                self._think(text, signature)
            case ToolCallArguments(number, json):
                self._calls[number].add(json)
            case ToolCallStart(number, identity, name):
                self._call(number, identity, name)
            case Refusal(text):
                self._message().add("refusal", text)
            case Annotation(data):
                self._message().annotate(data)
            case Start(model):
                self._head["model"] = model or self._head["model"]
                if not self._begun:
                    self._emit("response.created", {"response": self._head})
                self._emit("response.in_progress", {"response": self._head})
            case Finish(reason):
                self._reason = reason
        return self._taken()

    @override
    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        """Each piece has a number, and is kept for the end."""
        around = None if self._spoken is None else self._spoken.plain(_PART_OF[said], escaped)
        if around is None:
            return None
        head, before, after = around
        self._number += 1
        return b"%b%d%b%b%b" % (head, self._number - 1, before, escaped, after)

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        why = _INCOMPLETE.get(self._reason)
        status: Status = "completed" if why is None else "incomplete"
        if not self._count:
            self._message().add("output_text", "")  # clients look for a message in an empty answer too
        left: list[Item] = [*self._calls.values(), *([] if self._spoken is None else [self._spoken])]
        for item in sorted(left, key=lambda item: item.index):
            self._output[item.index] = item.close(status)
        final = {
            **self._head,
            "status": status,
            "incomplete_details": None if why is None else {"reason": why},
            "output": [self._output[index] for index in sorted(self._output)],
            "usage": None if usage is None else usage_object(usage),
        }
        self._emit(f"response.{status}", {"response": final})
        return self._taken()

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode(piece[1], piece[0])

    @override
    def begun(self, opened: Opened) -> None:
        self._begun, self._number = True, opened.number + 1
        self._head |= {"id": opened.id, "created_at": opened.created_at}

    @override
    def progress(self) -> Progress:
        """With the items that were whole."""
        so_far = {**self._head, "output": [self._output[index] for index in sorted(self._output)]}
        return Progress(sequence=self._number - 1, response=so_far)

    def _emit(self, kind: str, fields: Json) -> None:
        self._made.append((kind, {"type": kind, "sequence_number": self._number, **fields}))
        self._number += 1

    def _taken(self) -> list[Piece]:
        fields, self._made = self._made, []
        return fields

    def _next(self) -> tuple[int, str]:
        """Index and identity of a new item."""
        index = self._count
        self._count += 1
        return index, f"{self._id}{index:02d}"

    def _message(self) -> Spoken:
        spoken = self._spoken
        if spoken is None or isinstance(spoken, Thought):
            self._hush()
            spoken = self._spoken = message(self._emit, *self._next())
        return spoken

    def _think(self, text: str, signature: str) -> None:
        thought = self._spoken
        if not isinstance(thought, Thought):
            if not text:
                return  # the signature of nothing that went out
            self._hush()
            thought = self._spoken = reasoning(self._emit, *self._next(), sealed=self._sealed)
        if text:
            thought.add("reasoning_text", text)
        if signature:
            thought.signature = signature
            self._hush()  # it is whole: what is thought next is another one

    def _hush(self) -> None:
        spoken, self._spoken = self._spoken, None
        if spoken is not None:
            self._output[spoken.index] = spoken.close("completed")

    def _call(self, number: int, identity: str, name: str) -> None:
        self._hush()
        if not identity or identity in self._call_ids:
            identity = f"call_{self._id[:20]}{number:04d}"
        self._call_ids.add(identity)
        spelling = self._spellings.get(name) or Spelling(name)
        self._calls[number] = call(self._emit, *self._next(), identity, spelling)


def _response(answering: Answering) -> Json:
    """The response as it stands at the start."""
    return {
        "id": f"resp_{answering.id}",
        "object": "response",
        "created_at": answering.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": answering.prepared.model or "",
        "output": [],
        "usage": None,
        **answering.echo["response"],
    }


def usage_object(usage: Usage) -> Json:
    """The surface's usage object, as far as the upstream's figures go."""
    prompt, completion = usage.prompt or 0, usage.completion or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": prompt + completion,
    }
