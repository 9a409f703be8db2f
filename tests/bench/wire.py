"""The bytes that the fake model server sends and the load client expects, in one place.

In: which token of which answer. Out: chat chunks as vLLM writes them, about 230 bytes each. Must not: do I/O.

What an answer looks like is asked for in the prompt, since that is what every proxy passes on: ``bench n=200 rate=50
per=1 align=0``. With a rate each token carries when it was written (``CLOCK_MONOTONIC``, the same for all processes of
a machine); at full speed (rate 0) tokens carry none, so that the whole answer is known beforehand.
"""

import functools
import json
import re
from dataclasses import dataclass

MODEL = "bench"
CYCLE = 4096  # the numbers of tokens go round after so many
_ID = b"chatcmpl-8a5f0c1d2e3b4a59867f0e1d2c3b4a5f"
_START = b'data: {"id":"' + _ID + b'","object":"chat.completion.chunk","created":1760000000,"model":"bench","choices":['
_END = b"]}\n\n"
HEAD = _START + b'{"index":0,"delta":{"content":"'
TAIL = b'"},"logprobs":null,"finish_reason":null}' + _END
ROLE = _START + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}' + _END
FINISH = (
    _START + b'{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null}' + _END
)
# The same answer as Ollama writes it, a line for each token.
_LINE = b'{"model":"bench","created_at":"2026-11-14T12:00:00.123456789Z","message":{"role":"assistant","content":"'
_LINE_END = b'"},"done":false}\n'
LAST_LINE = (
    _LINE + b'"},"done_reason":"length","done":true,"total_duration":5000000000,"load_duration":1000000000,'
    b'"prompt_eval_count":9,"prompt_eval_duration":1000000000,"eval_count":9,"eval_duration":3000000000}\n'
)
DONE = b"data: [DONE]\n\n"
_TEXT = b" %04d %013d %07d"  # number, microseconds of the clock, microseconds since the request was there
TEXT_BYTES = len(_TEXT % (0, 0, 0))
TOKEN_BYTES = len(HEAD) + TEXT_BYTES + len(TAIL)
_ASKED = re.compile(rb"bench n=(\d+) rate=(\d+) per=(\d+) align=([01])")


@dataclass(frozen=True, slots=True)
class Ask:
    """An answer that is asked for.

    Attributes:
        n: How many tokens.
        rate: Tokens per second; 0 is full speed.
        per: Tokens in one write, which is one HTTP chunk.
        align: All streams of this kind write at the same moments.
    """

    n: int
    rate: int = 0
    per: int = 1
    align: bool = False

    def body(self, *, stream: bool = True) -> bytes:
        """The request body."""
        prompt = f"bench n={self.n} rate={self.rate} per={self.per} align={int(self.align)}"
        messages = [{"role": "user", "content": prompt}]
        return json.dumps({"model": MODEL, "messages": messages, "stream": stream, "max_tokens": self.n}).encode()

    @staticmethod
    def read(body: bytes) -> "Ask | None":
        """What a request body asks for, if it asks."""
        match = _ASKED.search(body)
        if match is None:
            return None
        n, rate, per, align = map(int, match.groups())
        return Ask(n, rate, max(1, per), bool(align))


def text(number: int, written_us: int = 0, waited_us: int = 0) -> bytes:
    """One token's text."""
    return _TEXT % (number % CYCLE, written_us, waited_us)


def token(number: int, written_us: int = 0, waited_us: int = 0) -> bytes:
    """One token's event."""
    return HEAD + text(number, written_us, waited_us) + TAIL


def line(number: int, written_us: int, waited_us: int) -> bytes:
    """One token's line."""
    return _LINE + text(number, written_us, waited_us) + _LINE_END


def usage(n: int) -> bytes:
    """The event that is sent only if it was asked for."""
    counts = b'"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}' % (n, n + 9)
    return _START + b"]," + counts + b"\n\n"


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.cache
def writes(per: int) -> list[bytes]:
    """One cycle of full speed tokens, as the writes they go out in."""
    if CYCLE % per:
        raise ValueError(f"{per} tokens in one write do not go into {CYCLE}")
    return [framed(b"".join(map(token, range(start, start + per)))) for start in range(0, CYCLE, per)]


@functools.cache
def whole(n: int) -> bytes:
    """The events of a full speed answer, all of them."""
    return ROLE + b"".join(map(token, range(n))) + FINISH + DONE


def joined(n: int) -> str:
    """The text of a full speed answer."""
    return b"".join(map(text, range(n))).decode()


@functools.cache
def collected(n: int) -> bytes:
    """The answer to a request that asked for no stream."""
    message = {"role": "assistant", "content": joined(n)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    counts = {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": n + 9}
    answer = {"id": _ID.decode(), "object": "chat.completion", "created": 1760000000, "model": MODEL}
    return json.dumps({**answer, "choices": [choice], "usage": counts}).encode()
