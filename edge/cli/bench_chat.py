"""One streamed chat completion, as ``edge bench`` sees it.

In: the pieces of its body, with times. Out: when its tokens came, what it used, and whether it was whole.
Must not: do I/O, or judge what was said.
"""

from collections.abc import Callable
from typing import Any

import orjson
from typing_extensions import override

from edge.cli.bench_load import Answer
from edge.protocol.sse import EventTooLarge, SseSplitter, events

_EVENT_BYTES = 2**24
_TOLD_BYTES = 400


class ChatAnswer(Answer):
    """See ``bench_load.Answer``.

    Args:
        sent: When the request was written.
        moved: Called with the number of events with content that a read brought.
        over: Called at the end.

    Attributes:
        first: When the first event with content came.
        last: When the last one came.
        gaps: Seconds between one such event and the next; those of one read are 0.
        chunks: How many such events came.
        used: Completion tokens, as the server counts them.
        fault: Why it is not whole; None if it is, and until the end.
    """

    def __init__(self, sent: float, moved: Callable[[int], None], over: Callable[[], None]) -> None:
        self.sent = sent
        self.first: float | None = None
        self.last = sent
        self.gaps: list[float] = []
        self.chunks = 0
        self.used: int | None = None
        self.fault: str | None = None
        self._moved = moved
        self._over = over
        self._status = 0
        self._refusal = b""
        self._finished = False
        self._splitter = SseSplitter(_EVENT_BYTES)

    @override
    def began(self, status: int, now: float) -> None:
        self._status = status

    @override
    def took(self, data: bytes, now: float) -> None:
        if self._status != 200:
            self._refusal = (self._refusal + data)[:_TOLD_BYTES]
            return
        before = self.chunks
        try:
            for event in events(self._splitter.feed(data)):
                self._event(event.data, now)
        except EventTooLarge as error:
            self.fault = self.fault or str(error)
        self._moved(self.chunks - before)

    @override
    def ended(self, fault: str | None, now: float) -> None:
        if self._status not in (0, 200):
            fault = f"status {self._status}: {_told(self._refusal)}"
        elif fault is None and not self._finished:
            fault = "ended without a finish_reason"
        self.fault = self.fault or fault
        self._over()

    def _event(self, data: bytes, now: float) -> None:
        if data.strip() == b"[DONE]":
            return
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.fault = self.fault or f"an event that is no JSON: {data[:80]!r}"
            return
        if not isinstance(chunk, dict):
            return
        if chunk.get("error"):
            self.fault = self.fault or f"error in the stream: {_message(chunk)}"
        usage = chunk.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self.used = usage["completion_tokens"]
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._choice(choice, now)

    def _choice(self, choice: dict[str, Any], now: float) -> None:
        delta = choice.get("delta") or {}
        if any(value for key, value in delta.items() if key != "role"):
            if self.first is None:
                self.first = now
            else:
                self.gaps.append(now - self.last)
            self.last = now
            self.chunks += 1
        if choice.get("finish_reason"):
            self._finished = True


def _told(body: bytes) -> str:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace").strip() or "no body"
    return _message(answer) if isinstance(answer, dict) else str(answer)


def _message(answer: dict[str, Any]) -> str:
    error = answer.get("error", answer)
    return str(error.get("message", error) if isinstance(error, dict) else error)[:_TOLD_BYTES]
