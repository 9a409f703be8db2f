"""Legacy completions across surfaces: one prompt that is continued as it stands.

In: the decoded body of a request, an ``Ask``, decoded chunks, or canonical events. Out: the other side of each. Must
not: raise on any JSON of an upstream's, or accept what nobody else could express (several prompts, ``echo``).
Format: https://platform.openai.com/docs/api-reference/completions
"""

from itertools import zip_longest
from typing import Any

from typing_extensions import override

from edge.protocol import finish_reasons
from edge.protocol.batch import Usage
from edge.protocol.canonical import Ask, Rendering, Target
from edge.protocol.chat.decode import in_order
from edge.protocol.chat.encode import ChunkEncoder
from edge.protocol.chat.render import SHAPING
from edge.protocol.events import Event, Finish, Logprobs, Reason, Refusal, Start, Text
from edge.protocol.fields import Fields
from edge.protocol.openai_usage import read_usage
from edge.protocol.sampling import read_sampling
from edge.protocol.transcode_ports import Answering, Decoder, Piece

_SAMPLING = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "user")
_REASONS: dict[object, Reason] = {"length": "length", "content_filter": "content_filter"}


def parse(body: dict[str, Any]) -> Ask:
    """Read a request.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    fields.known("stream", "stream_options")
    ask = Ask(
        model=fields.text("model"),
        prompt=_prompt(fields),
        suffix=fields.text("suffix"),
        max_tokens=fields.whole("max_tokens", 1),
        logprobs=None if fields.whole("logprobs", 0) is None else True,
        n=fields.whole("n", 1),
    )
    read_sampling(fields, ask)
    if fields.flag("echo"):
        raise fields.wrong("echo", "has no equivalent at the upstream that has this model")
    if (fields.whole("best_of", 1) or 1) > 1:
        raise fields.wrong("best_of", "the upstream that has this model gives one answer at a time")
    ask.extra = fields.rest()
    return ask


def _prompt(fields: Fields) -> str:
    given = fields.any("prompt")
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, str) and given:
        return given
    if isinstance(given, list) and all(isinstance(item, str) for item in given) and given:
        raise fields.wrong("prompt", "the upstream that has this model continues one prompt at a time")
    raise fields.wrong("prompt", "required, a string that is not empty; this upstream takes no token numbers")


def render(ask: Ask, to: Target) -> Rendering:
    """Write a request."""
    out = Rendering(ask, to)
    out.put("model", ask.model)
    out.body["prompt"] = ask.prompt or ""
    out.body["stream"] = True
    out.body["stream_options"] = {"include_usage": True}
    out.put("suffix", ask.suffix)
    # Left out it would mean 16 tokens to some, null means until the end to those.
    out.body["max_tokens"] = ask.max_tokens
    for name in _SAMPLING:
        out.put(name, getattr(ask, name))
    if ask.logprobs:  # 0 alternatives would be none at all to llama.cpp
        out.body["logprobs"] = ask.top_logprobs or 1
    out.drop("thinking", "keep_alive", "options")
    if to.cloud:
        out.drop("top_k", "min_p")
        out.drop_extra()
    else:
        out.put("top_k", ask.top_k)
        out.put("min_p", ask.min_p)
        out.put_extra(SHAPING)
    return out


class CompletionsDecoder(Decoder):
    """A ``transcode_ports.Decoder`` of chunks."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unreadable = ""
        self._started = False

    @override
    def add(self, event: dict[str, object]) -> None:
        if not isinstance(event, dict):
            return
        if not self._started:
            self._started = True
            model = event.get("model")
            self.events.append(Start(model if isinstance(model, str) else ""))
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice)

    def answer(self) -> dict[str, object]:
        """Nothing: it is the encoder's collector that has the answer."""
        return {}

    @override
    def whole(self, answer: dict[str, object]) -> Usage | None:
        """A whole answer is like one chunk."""
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        self.add({**answer, "choices": in_order(choices)})
        usage = answer.get("usage")
        return read_usage(usage) if isinstance(usage, dict) else None

    def _choice(self, choice: dict[str, Any]) -> None:
        number = choice.get("index")
        index = number if isinstance(number, int) else 0
        text, finish = choice.get("text"), choice.get("finish_reason")
        tokens = read_logprobs(choice.get("logprobs"))
        if tokens:
            self.events.append(Logprobs(tokens, index))
        if text and isinstance(text, str):
            self.events.append(Text(text, index))
        if finish:
            stopped = choice.get("stop_reason")  # vLLM: the stop sequence, or the number of a token
            means = finish_reasons.reason(finish)
            means = "stop" if means == "tool_calls" else means
            self.events.append(Finish(means, stopped if isinstance(stopped, str) else None, index))


def read_logprobs(fields: object) -> list[dict[str, Any]]:
    """What a choice says of its tokens: in the lists of completions, or as llama.cpp does, in those of chat."""
    if not isinstance(fields, dict):
        return []
    content = fields.get("content")
    if isinstance(content, list):
        return [token for token in content if isinstance(token, dict)]
    columns = [fields.get(name) for name in ("tokens", "token_logprobs", "top_logprobs")]
    tokens, likely, top = (column if isinstance(column, list) else [] for column in columns)
    return [
        {"token": token, "logprob": logprob, "top_logprobs": _alternatives(others)}
        for token, logprob, others in zip_longest(tokens, likely[: len(tokens)], top[: len(tokens)])
        if isinstance(token, str)
    ]


def _alternatives(others: object) -> list[dict[str, Any]]:
    found = others.items() if isinstance(others, dict) else ()
    return [{"token": token, "logprob": logprob} for token, logprob in found]


class CompletionsEncoder(ChunkEncoder):
    """A ``transcode_ports.Encoder`` of chunks of text, then a finish."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering, "cmpl", "text_completion")

    @override
    def add(self, event: Event) -> list[Piece]:
        """What is neither text nor an end has no place here."""
        match event:
            case Text(text, index) | Refusal(text, index):
                return [self._choice(text, index, None)]
            case Start(model):
                self._head["model"] = model or self._head["model"]
            case Finish(reason, _, index):
                return [self._choice("", index, _REASONS.get(reason, "stop"))]
        return []

    def _choice(self, text: str, index: int, finish: str | None) -> Piece:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        return None, {**self._head, "choices": [choice]}
