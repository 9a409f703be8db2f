"""Answers that insist on getting exactly what the fake model server sent.

In: the pieces of a body, with times. Out: counts and times in a ``Tally``; every difference is a fault.
Must not: object to what a relay may change: comments, the usage event nobody asked for, and the JSON of an event as
long as its text is the same.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import wire

_TOLD_BYTES = 120


@dataclass
class Tally:
    """What all answers of a load came to.

    Attributes:
        recording: Whether delays and gaps are noted now.
        tokens: How many arrived; at full speed counted by bytes.
        ttft: What the way added to the first token of each stream that had one, seconds.
        delays: From written by the server to arrived, seconds.
        gaps: By how much each gap between two tokens grew or shrank on the way, seconds.
        faults: Answers that were not what was sent, by what was wrong.
    """

    recording: bool = False
    tokens: float = 0
    begun: int = 0
    whole: int = 0
    requests: int = 0
    ttft: array = field(default_factory=lambda: array("d"))
    delays: array = field(default_factory=lambda: array("d"))
    gaps: array = field(default_factory=lambda: array("d"))
    faults: Counter = field(default_factory=Counter)


class Checked:
    """What all checked answers share; see ``edge.cli.bench_load.Answer``.

    Args:
        over: Called at the end.
    """

    def __init__(self, tally: Tally, ask: wire.Ask, sent: float, over: Callable[["Checked"], None]) -> None:
        self.tally = tally
        self.ask = ask
        self.sent = sent
        self.fault: str | None = None
        self.status = 0
        self.over = over
        self._refusal = b""

    def began(self, status: int, now: float) -> None:
        self.status = status

    def took(self, data: bytes, now: float) -> None:
        if self.status != 200:
            self._refusal = (self._refusal + data)[:_TOLD_BYTES]
        elif self.fault is None:
            self.check(data, now)

    def ended(self, fault: str | None, now: float) -> None:
        if self.status not in (0, 200):
            self.wrong(f"status {self.status}: {self._refusal.decode(errors='replace')}")
        elif fault is not None:
            self.wrong(fault)
        elif self.fault is None:
            self.check_end()
        if self.fault is None:
            self.tally.whole += 1
        else:
            self.tally.faults[self.fault] += 1
        self.over(self)

    def wrong(self, fault: str) -> None:
        """Note the first thing that is wrong; nothing is checked after it."""
        self.fault = self.fault or fault

    def check(self, data: bytes, now: float) -> None:
        raise NotImplementedError

    def check_end(self) -> None:
        raise NotImplementedError


class Events(Checked):
    """Each event is looked at: its number must be the next, and its time tells how long it took.

    Attributes:
        number: Of the token that comes next; given where another check went before.
    """

    def __init__(self, *args: object, number: int = 0, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.number = number
        self._rest = b""
        self._done = False
        self._finished = False
        self._delay: float | None = None

    def check(self, data: bytes, now: float) -> None:
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            if block.startswith(wire.HEAD) and len(block) == wire.TOKEN_BYTES - 2 and block.endswith(wire.TAIL[:-2]):
                self._text(block[len(wire.HEAD) : len(wire.HEAD) + wire.TEXT_BYTES], now)
            else:
                self._block(block, now)

    def check_end(self) -> None:
        if self.number != self.ask.n:
            self.wrong(f"tokens are missing at the end (of {self.ask.n})")
        elif self._rest:
            self.wrong(f"ended in the middle of an event: {self._rest[:_TOLD_BYTES]!r}")
        elif not (self._finished and self._done):
            self.wrong("ended without finish_reason or [DONE]")

    def _block(self, block: bytes, now: float) -> None:
        """An event that is not byte for byte a token of ours."""
        for line in block.strip(b"\n").split(b"\n"):
            if line.startswith(b"data: [DONE]"):
                self._done = True
            elif line.startswith(b"data:"):
                self._json(line[5:], now)
            elif line and not line.startswith((b":", b"id:", b"retry:")):
                self.wrong(f"not a line of such a stream: {line[:_TOLD_BYTES]!r}")

    def _json(self, line: bytes, now: float) -> None:
        try:
            chunk = json.loads(line)
            choices = chunk["choices"]
            content = choices[0]["delta"].get("content") if choices else None
            self._finished = self._finished or bool(choices and choices[0].get("finish_reason"))
        except (ValueError, LookupError, TypeError, AttributeError):
            self.wrong(f"not a chunk: {line[:_TOLD_BYTES].decode(errors='replace')}")
            return
        if content:
            self._texts(content.encode(), now)

    def _texts(self, text: bytes, now: float) -> None:
        """The text of an event that a translation has made of several tokens of one read."""
        for start in range(0, len(text), wire.TEXT_BYTES):
            self._text(text[start : start + wire.TEXT_BYTES], now)

    def _text(self, text: bytes, now: float) -> None:
        try:
            number, written, waited = map(int, text.split())
        except ValueError:
            self.wrong(f"not a token that was sent: {text[:_TOLD_BYTES]!r}")
            return
        if number != self.number % wire.CYCLE or len(text) != wire.TEXT_BYTES:
            self.wrong(f"tokens lost or out of order: {_jump(number, self.number)}")
            return
        tally = self.tally
        if written:
            delay = now - written / 1e6
            if self.number == 0:
                tally.ttft.append(now - self.sent - waited / 1e6)
            elif tally.recording:
                tally.delays.append(delay)
                if self._delay is not None:
                    tally.gaps.append(delay - self._delay)
            self._delay = delay
        if self.number == 0:
            tally.begun += 1
        self.number += 1
        tally.tokens += 1


def _jump(number: int, expected: int) -> str:
    ahead = (number - expected) % wire.CYCLE
    return f"{ahead} are missing" if ahead < wire.CYCLE // 2 else "some came twice"


class MessagesEvents(Events):
    """The same answer as Anthropic's Messages."""

    def _json(self, line: bytes, now: float) -> None:
        try:
            event = json.loads(line)
            kind = event["type"]
            delta = event.get("delta") or {}
            text = delta.get("text") if kind == "content_block_delta" else None
        except (ValueError, LookupError, TypeError, AttributeError):
            self.wrong(f"not an event: {line[:_TOLD_BYTES].decode(errors='replace')}")
            return
        self._finished = self._finished or bool(delta.get("stop_reason"))
        self._done = self._done or kind == "message_stop"
        if text:
            self._texts(text.encode(), now)

    def _block(self, block: bytes, now: float) -> None:
        super()._block(b"\n".join(line for line in block.split(b"\n") if not line.startswith(b"event: ")), now)


class Exact(Checked):
    """The whole body is known beforehand and compared as it comes, which costs one ``memcmp`` a read.

    A relay that changes bytes is checked event by event from there on.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._expected = wire.whole(self.ask.n)
        self._at = 0
        self._events: Events | None = None

    def check(self, data: bytes, now: float) -> None:
        if self._events is not None:
            self._events.check(data, now)
            self.fault = self._events.fault
        elif self._expected.startswith(data, self._at):
            self._at += len(data)
            self.tally.tokens += len(data) / wire.TOKEN_BYTES
        else:
            self._look_closer(data, now)

    def check_end(self) -> None:
        if self._events is not None:
            self._events.check_end()
            self.fault = self._events.fault
        elif self._at != len(self._expected):
            self.wrong(f"tokens are missing at the end (of {self.ask.n})")

    def _look_closer(self, data: bytes, now: float) -> None:
        past_role = self._at - len(wire.ROLE)
        number = min(max(0, past_role // wire.TOKEN_BYTES), self.ask.n)
        start = len(wire.ROLE) + number * wire.TOKEN_BYTES if past_role >= 0 else 0
        self._events = Events(self.tally, self.ask, self.sent, self.over, number=number)
        self._events.check(self._expected[start : self._at] + data, now)
        self.fault = self._events.fault


class Whole(Checked):
    """One JSON body, whose text is compared; its JSON may be another server's."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._body = b""

    def check(self, data: bytes, now: float) -> None:
        self._body += data

    def check_end(self) -> None:
        try:
            text = json.loads(self._body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            self.wrong(f"not a chat completion: {self._body[:_TOLD_BYTES]!r}")
            return
        if text != wire.joined(self.ask.n):
            self.wrong(f"another text than was sent: {text[:_TOLD_BYTES]!r}")
        self.tally.requests += 1
        self.tally.tokens += self.ask.n
