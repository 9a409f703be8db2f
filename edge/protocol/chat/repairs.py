"""Known faults of chat completions streams, mended chunk by chunk; each repair has a name, and is on or off.

In: decoded chunks. Out: the events that go out in place of one, or nothing if it can stay as it is. Must not: touch a
chunk that needs nothing, for then its bytes are relayed; raise on any JSON; invent what the server did not say, but
for the role.

A chunk that is mended has been decoded and is encoded again, as one line; one that is too long for a line is cut into
several of the same shape. Only text that clients join is cut: an inline image stays as long as it is. Clients that read
a stream by lines with aiohttp die of one over 128 KiB:
https://github.com/open-webui/open-webui/issues/10302, #17626, #19800.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from edge.protocol.json_text import dumps
from edge.protocol.sse import Event, encode
from edge.protocol.tool_calls import CallNumbers

Chunk = dict[str, Any]

ROLE_FIRST = "role-first"
STABLE_ID = "stable-id"
FINISH_NULL = "finish-null"
TOOL_INDEX = "tool-index"
BOTH_REASONING = "both-reasoning"
SPLIT_LONG = "split-long"
MENDED = frozenset({ROLE_FIRST, STABLE_ID, FINISH_NULL, TOOL_INDEX, BOTH_REASONING, SPLIT_LONG})

LONG_LINE = 48 * 1024  # bytes; no line of text gets longer
_PIECE = LONG_LINE // 3  # a piece of reasoning may come under both its names

_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")  # in the order in which a model says them
_REASONING = ("reasoning_content", "reasoning")


class Mended(NamedTuple):
    """What goes out instead of one event: its bytes, and the chunks in them."""

    data: bytes
    chunks: list[Chunk]


class Mender:
    """Mends one stream; its state is what it has seen of it.

    Args:
        repairs: The names of those that are on; others than ``MENDED`` mean nothing here.
    """

    def __init__(self, repairs: frozenset[str]) -> None:
        self._role_first = ROLE_FIRST in repairs
        self._stable_id = STABLE_ID in repairs
        self._finish_null = FINISH_NULL in repairs
        self._tool_index = TOOL_INDEX in repairs
        self._both_reasoning = BOTH_REASONING in repairs
        self._split_long = SPLIT_LONG in repairs
        self._pinned: Chunk | None = None  # id and created of the first chunk with choices, as far as it has them
        # Empty ones are all the same object; a set of its own takes 216 bytes.
        self._begun: frozenset[int] = frozenset()  # choices that have said something
        self._role_added: frozenset[int] = frozenset()  # choices whose role Edge has sent
        self._calls: dict[int, CallNumbers] = {}

    def mend(self, chunk: Chunk, event: Event) -> Mended | None:
        """Mend the decoded ``event`` in place; what goes out instead, None if its bytes can stay."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return None  # something else that the server has to say
        changed = self._stable_id and self._stabilise(chunk)
        roles: list[Chunk] = []
        for choice in choices:
            if isinstance(choice, dict):
                changed = self._mend_choice(choice) or changed
                if self._role_first and self._lacks_role(choice):
                    roles.append(_role_chunk(chunk, choice))
        overlong = self._split_long and has_long_line(event.raw)
        if not (changed or roles or overlong):
            return None
        try:
            return self._written(chunk, event, roles, changed=changed, overlong=overlong)
        except orjson.JSONEncodeError:
            return None  # nested deeper than can be written again

    def _written(self, chunk: Chunk, event: Event, roles: list[Chunk], *, changed: bool, overlong: bool) -> Mended:
        name, parts, data = event.event or None, [chunk], event.raw
        if changed or overlong:
            data = encode(chunk, name)
        if self._split_long and has_long_line(data):
            parts = split(chunk)
            if len(parts) > 1:
                data = b"".join(encode(part, name) for part in parts)
            elif not changed:
                data = event.raw
        return Mended(b"".join(encode(role, name) for role in roles) + data, roles + parts)

    def _mend_choice(self, choice: Chunk) -> bool:
        changed = False
        if self._finish_null and choice.get("finish_reason") == "":
            choice["finish_reason"] = None
            changed = True
        delta = choice.get("delta")
        if isinstance(delta, dict):
            if delta.get("role") and _number(choice) in self._role_added:
                del delta["role"]  # the OpenAI SDK would join it to the first one
                changed = True
            if self._tool_index and isinstance(calls := delta.get("tool_calls"), list):
                changed = _number_calls(self._calls.setdefault(_number(choice), CallNumbers()), calls) or changed
            if self._both_reasoning:
                changed = _copy_reasoning(delta) or changed
        return changed

    def _stabilise(self, chunk: Chunk) -> bool:
        if self._pinned is None:
            if chunk.get("choices"):  # Azure has neither on the one before, which is about the prompt
                self._pinned = {name: chunk[name] for name in ("id", "created") if chunk.get(name)}
            return False
        differing = {name: value for name, value in self._pinned.items() if chunk.get(name) != value}
        chunk.update(differing)
        return bool(differing)

    def _lacks_role(self, choice: Chunk) -> bool:
        """Whether this is the first that a choice says, and it does not begin with its role."""
        number, delta = _number(choice), choice.get("delta")
        if number in self._begun or not isinstance(delta, dict):
            return False
        if not any(delta.values()) and not choice.get("finish_reason"):
            return False
        self._begun |= {number}
        if delta.get("role"):
            return False
        self._role_added |= {number}
        return True


def _number_calls(numbers: CallNumbers, calls: list[Any]) -> bool:
    """Give each call an ``index`` of its own; whether any had none, or that of another call."""
    changed = False
    for call in calls:
        if isinstance(call, dict):
            at = numbers.number(call)
            if call.get("index") != at:
                call["index"] = at
                changed = True
    return changed


def _copy_reasoning(delta: Chunk) -> bool:
    for name, other in (_REASONING, _REASONING[::-1]):
        said = delta.get(name)
        if said and isinstance(said, str) and not delta.get(other):
            delta[other] = said
            return True
    return False


def _role_chunk(chunk: Chunk, choice: Chunk) -> Chunk:
    """As OpenAI begins a choice."""
    first = {"index": _number(choice), "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    return {**head_of(chunk), "choices": [first]}


def _number(choice: Chunk) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


# --- chunks that are too long for a line ------------------------------------------------------------------------------


def head_of(chunk: Chunk) -> Chunk:
    """The fields that all chunks of a stream have."""
    return {name: chunk[name] for name in _HEAD if name in chunk}


def has_long_line(run: bytes) -> bool:
    """Whether a line in it is over ``LONG_LINE``."""
    return long_line(run, 0) < len(run)


def long_line(run: bytes, start: int) -> int:
    """Where from ``start`` on the first line over ``LONG_LINE`` begins; the end if there is none.

    It leaps from line end to line end as far as it may: some 0.2 µs for 48 KiB. A lone CR is no line end here, so
    that too much is found where a server uses those.
    """
    while len(run) - start > LONG_LINE:
        after = run.rfind(b"\n", start, start + LONG_LINE + 1) + 1
        if not after:
            return start
        start = after
    return len(run)


def split(chunk: Chunk) -> list[Chunk]:
    """The same, for a chunk with choices, in chunks of one piece of text each; itself if there is no text to cut."""
    pieces = [piece for choice in chunk["choices"] for piece in _pieces(choice)]
    if len(pieces) < 2:
        return [chunk]
    head = head_of(chunk)
    parts = [{**head, "choices": [piece]} for piece in pieces]
    # What comes once comes first, but for the count of all of it.
    parts[0] = {**{name: value for name, value in chunk.items() if name != "usage"}, **parts[0]}
    if "usage" in chunk:
        parts[-1]["usage"] = chunk["usage"]
    return parts


def _pieces(choice: Any) -> Iterator[Any]:
    """A choice in pieces: the first has whatever is not text, the last has how it ends."""
    delta = choice.get("delta") if isinstance(choice, dict) else None
    deltas = list(_deltas(delta)) if isinstance(delta, dict) else []
    if len(deltas) < 2:
        yield choice
        return
    plain = {"index": choice.get("index", 0), "finish_reason": None}
    yield {**choice, "delta": deltas[0], "finish_reason": None}
    for piece in deltas[1:-1]:
        yield {**plain, "delta": piece}
    ends = {name: choice[name] for name in ("finish_reason", "stop_reason") if name in choice}
    yield {**plain, "delta": deltas[-1], **ends}


def _deltas(delta: Chunk) -> Iterator[Chunk]:
    rest = dict(delta)
    pieces: list[Chunk] = []
    for name in _TEXTS:
        text = rest.get(name)
        if text and isinstance(text, str):
            # Reasoning that comes under both names stays so: who reads either must not get it twice.
            names = [other for other in _TEXTS if rest.get(other) == text]
            for other in names:
                del rest[other]
            pieces += [dict.fromkeys(names, piece) for piece in cut(text)]
    calls = rest.get("tool_calls")
    if isinstance(calls, list):
        begun, pieces_of_calls = _calls(calls)
        rest["tool_calls"] = begun
        pieces += pieces_of_calls
    if any(rest.values()):
        yield rest
    yield from pieces


def _calls(calls: list[Any]) -> tuple[list[Any], list[Chunk]]:
    """The calls without their arguments, and these in pieces."""
    begun: list[Any] = []
    pieces: list[Chunk] = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(arguments, str):
            begun.append(call)
            continue
        begun.append({**call, "function": {**function, "arguments": ""}})
        whose = {"index": call["index"]} if "index" in call else {}
        pieces += [{"tool_calls": [{**whose, "function": {"arguments": piece}}]} for piece in cut(arguments)]
    return begun, pieces


def cut(text: str) -> Iterator[str]:
    """Pieces of a text, cut between code points, that are no longer than ``_PIECE`` as JSON."""
    if len(text) < 2 or len(dumps(text)) <= _PIECE:
        yield text
        return
    half = len(text) // 2
    yield from cut(text[:half])
    yield from cut(text[half:])
