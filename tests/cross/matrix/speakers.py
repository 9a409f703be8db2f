"""How a client asks for a thing in each surface, and what it reads out of an answer, streamed or not.

In: ``Want``, or an answer. Out: a request's body, or ``Told``. Must not: know which upstream answers, or forgive what
the surface's own SDKs would not. A new surface needs a class here, and a row in ``table.CELLS``.
"""

from collections import defaultdict
from typing import Protocol

import orjson
from cross.matrix.said import CALLS, IMAGE_URL, PNG, RESULTS, SCHEMA, Finish, Json, Told, Want
from fakes.answers import DONE
from support.eventsource import parsed
from support.raw import CHAT, COMPLETIONS, MESSAGES, Answer

TOOL: Json = {"name": "clock", "description": "tells time", "parameters": {"type": "object", "properties": {}}}


class Speaker(Protocol):
    """One surface, as clients speak it.

    Attributes:
        takes: What a client can ask for in it.
        shows: What an answer can have in it beside text.
        whole: An answer may be asked for in one body.
        at_once: The status goes out before the upstream has said anything.
    """

    name: str
    path: str
    takes: frozenset[str]
    shows: frozenset[str]
    whole: bool
    at_once: bool

    def body(self, want: Want) -> Json:
        """The request."""

    def told(self, answer: Answer) -> Told:
        """What the answer says."""


def openai_error(body: Json) -> str:
    """The message of OpenAI's envelope."""
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    message: str = body["error"]["message"]
    return message


def anthropic_error(body: Json) -> str:
    """The message of Anthropic's."""
    assert set(body) <= {"type", "error", "request_id"}
    assert (body["type"], set(body["error"])) == ("error", {"type", "message"})
    message: str = body["error"]["message"]
    return message


def payloads(answer: Answer) -> list[Json]:
    """The data of the events, but for the terminator."""
    return [event.json for event in parsed(answer.body).events if event.data != "[DONE]"]


def chat_history(*, ids: bool) -> list[Json]:
    """``HISTORY`` in the messages of chat completions, or without ``ids`` in Ollama's."""

    def call(number: int, name: str, given: Json) -> Json:
        function = {"name": name, "arguments": orjson.dumps(given).decode() if ids else given}
        return {"id": f"c:{number}", "type": "function", "function": function} if ids else {"function": function}

    def result(number: int, text: str) -> Json:
        whose = {"tool_call_id": f"c:{number}"} if ids else {"tool_name": CALLS[number][0]}
        return {"role": "tool", "content": text, **whose}

    return [
        {"role": "user", "content": "the time?"},
        {
            "role": "assistant",
            "content": "I look",
            "tool_calls": [call(number, *made) for number, made in enumerate(CALLS)],
        },
        *(result(number, text) for number, text in enumerate(RESULTS)),
        {"role": "assistant", "content": "It is late"},
    ]


class ChatClient:
    name, path, whole, at_once = "chat", CHAT, True, False
    takes = frozenset({"image", "stop", "schema", "tools", "system", "history"})
    shows = frozenset({"reasoning", "calls"})

    def body(self, want: Want) -> Json:
        content: object = "hi"
        if want.image:
            image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
            content = [{"type": "text", "text": "hi"}, image]
        before = [{"role": "system", "content": want.system}] if want.system else []
        before += chat_history(ids=True) if want.history else []
        body: Json = {"model": "m", "messages": [*before, {"role": "user", "content": content}], "stream": want.stream}
        if want.stream:
            body["stream_options"] = {"include_usage": True}
        if want.stop:
            body["stop"] = list(want.stop)
        if want.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": want.schema}}
        if want.tools:
            body["tools"] = [{"type": "function", "function": TOOL}]
        return {**body, **want.extra}

    def told(self, answer: Answer) -> Told:
        if answer.headers["content-type"].startswith("application/json"):
            return self._whole(answer)
        told = Told(answer.status, done=answer.events[-1:] == [DONE])
        calls: defaultdict[int, list[str]] = defaultdict(lambda: ["", "", ""])
        ids, roles = set(), []
        for chunk in payloads(answer):
            if "error" in chunk:
                told.error = openai_error(chunk)
                continue
            ids.add((chunk["id"], chunk["created"], chunk["object"]))
            if chunk.get("usage") and not chunk["choices"]:
                told.usage = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
            for choice in chunk["choices"]:
                assert told.finish is None, "nothing follows a finish"
                delta = choice["delta"]
                roles += [delta["role"]] if "role" in delta else []
                told.text += delta.get("content") or ""
                told.reasoning += delta.get("reasoning_content") or ""
                told.finish = choice["finish_reason"]
                for call in delta.get("tool_calls") or ():
                    held, function = calls[call["index"]], call["function"]
                    held[0] += call.get("id") or ""
                    held[1] += function.get("name") or ""
                    held[2] += function.get("arguments") or ""
        assert len(ids) <= 1, "one id and one time for the whole stream"
        assert roles in ([], ["assistant"]), "the role is told once"
        told.calls = [(name, orjson.loads(given)) for _, name, given in calls.values()]
        told.call_ids = [identity for identity, _, _ in calls.values()]
        return told

    def _whole(self, answer: Answer) -> Told:
        body = answer.json
        if "error" in body:
            return Told(answer.status, error=openai_error(body))
        (choice,) = body["choices"]
        message, usage = choice["message"], body["usage"]
        calls = message.get("tool_calls") or []
        return Told(
            answer.status,
            message["content"] or "",
            message.get("reasoning_content") or "",
            [(call["function"]["name"], orjson.loads(call["function"]["arguments"])) for call in calls],
            [call["id"] for call in calls],
            choice["finish_reason"],
            usage=(usage["prompt_tokens"], usage["completion_tokens"]),
            done=True,
        )


class CompletionsClient:
    name, path, whole, at_once = "completions", COMPLETIONS, True, False
    takes = frozenset({"stop"})
    shows: frozenset[str] = frozenset()

    def body(self, want: Want) -> Json:
        body: Json = {"model": "m", "prompt": "hi", "stream": want.stream}
        if want.stream:
            body["stream_options"] = {"include_usage": True}
        return {**body, **({"stop": list(want.stop)} if want.stop else {}), **want.extra}

    def told(self, answer: Answer) -> Told:
        streamed = not answer.headers["content-type"].startswith("application/json")
        told = Told(answer.status, done=answer.events[-1:] == [DONE] if streamed else "error" not in answer.json)
        for chunk in payloads(answer) if streamed else [answer.json]:
            if "error" in chunk:
                told.error = openai_error(chunk)
                continue
            if chunk.get("usage"):
                told.usage = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
            for choice in chunk["choices"]:
                told.text += choice["text"]
                told.finish = choice["finish_reason"]
        return told


class MessagesClient:
    name, path, whole, at_once = "messages", MESSAGES, True, False
    takes = frozenset({"image", "stop", "schema", "tools", "system", "history"})
    shows = frozenset({"reasoning", "calls", "stop_sequence"})
    _reasons: dict[str, Finish] = {  # noqa: RUF012 - never changed
        "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    }  # fmt: skip

    def body(self, want: Want) -> Json:
        content: object = "hi"
        if want.image:
            source = {"type": "base64", "media_type": "image/png", "data": PNG}
            content = [{"type": "text", "text": "hi"}, {"type": "image", "source": source}]
        messages = [*(self._history() if want.history else []), {"role": "user", "content": content}]
        body: Json = {"model": "m", "max_tokens": 99, "messages": messages, "stream": want.stream}
        if want.system:
            body["system"] = want.system
        if want.stop:
            body["stop_sequences"] = list(want.stop)
        if want.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": want.schema}}
        if want.tools:
            body["tools"] = [{"name": "clock", "description": "tells time", "input_schema": TOOL["parameters"]}]
        return {**body, **want.extra}

    def told(self, answer: Answer) -> Told:
        if answer.headers["content-type"].startswith("application/json"):
            body = answer.json
            if "error" in body:
                return Told(answer.status, error=anthropic_error(body))
            return self._read(Told(answer.status, done=True), body["content"], body, body["usage"])
        read = _MessageStream()
        for event in parsed(answer.body).events:
            assert event.type == event.json["type"], "the SDK dispatches on the event's name"
            read.take(event.type, event.json)
        told = Told(answer.status, error=read.error, done=read.done)
        return self._read(told, read.blocks, read.last, read.usage)

    def _history(self) -> list[Json]:
        uses = [
            {"type": "tool_use", "id": f"c_{n}", "name": name, "input": given} for n, (name, given) in enumerate(CALLS)
        ]
        results = [{"type": "tool_result", "tool_use_id": f"c_{n}", "content": text} for n, text in enumerate(RESULTS)]
        return [
            {"role": "user", "content": "the time?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look"}, *uses]},
            {"role": "user", "content": results},
            {"role": "assistant", "content": "It is late"},
        ]

    def _read(self, told: Told, blocks: list[Json], last: Json, usage: Json) -> Told:
        told.text = "".join(block["text"] for block in blocks if block["type"] == "text")
        told.reasoning = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
        uses = [block for block in blocks if block["type"] == "tool_use"]
        told.calls = [(use["name"], use["input"]) for use in uses]
        told.call_ids = [use["id"] for use in uses]
        told.finish = self._reasons[last["stop_reason"]] if last else None
        told.stop_sequence = last.get("stop_sequence")
        told.usage = (usage["input_tokens"], usage["output_tokens"]) if told.done else None
        return told


class _MessageStream:
    """A Messages stream, put together as the SDK does it."""

    def __init__(self) -> None:
        self.blocks: list[Json] = []
        self.usage: Json = {}
        self.last: Json = {}
        self.done = False
        self.error: str | None = None
        self._open = False

    def take(self, kind: str, payload: Json) -> None:
        assert not self.done, "nothing follows the last event"
        match kind:
            case "message_start":
                self.usage = dict(payload["message"]["usage"])
            case "content_block_start":
                assert (self._open, payload["index"]) == (False, len(self.blocks)), "one block at a time, in order"
                self._open = True
                self.blocks.append({**payload["content_block"], "json": ""})
            case "content_block_delta":
                assert (self._open, payload["index"]) == (True, len(self.blocks) - 1)
                self._extend(self.blocks[-1], payload["delta"])
            case "content_block_stop":
                assert (self._open, payload["index"]) == (True, len(self.blocks) - 1)
                self._open = False
                if self.blocks[-1]["json"]:
                    self.blocks[-1]["input"] = orjson.loads(self.blocks[-1]["json"])
            case "message_delta":
                assert not self._open
                self.last = payload["delta"]
                self.usage |= payload["usage"]
            case "message_stop":
                self.done = True
            case "error":
                self.error = anthropic_error(payload)

    def _extend(self, block: Json, delta: Json) -> None:
        if delta["type"] == "input_json_delta":
            block["json"] += delta["partial_json"]
        else:
            name = delta["type"].removesuffix("_delta")
            block[name] += delta[name]


class SessionClient:
    name, path, whole, at_once = "session", "/v1/chat/stream", False, True
    takes = frozenset({"system"})
    shows: frozenset[str] = frozenset()

    def body(self, want: Want) -> Json:
        system = {"system": want.system} if want.system else {}
        return {"message": "hi", "model": "m", "metadata": True, **system, **want.extra}

    def told(self, answer: Answer) -> Told:
        told = Told(answer.status)
        if answer.headers["content-type"].startswith("application/json"):
            told.error = openai_error(answer.json)
            return told
        events = parsed(answer.body).events
        assert [event.id for event in events] == [f"{events[0].id[:-2]}:{n}" for n in range(1, len(events) + 1)]
        for event in events:
            assert not told.done, "nothing follows the last message"
            match event.type:
                case "message":
                    told.text += event.json["delta"]
                    told.done = event.json["done"]
                    usage = event.json.get("usage")
                    told.usage = usage and (usage["prompt_tokens"], usage["completion_tokens"])
                case "metadata":
                    told.finish = event.json.get("finish_reason")
                case "error":
                    told.error = event.json["message"]
        return told


def asked(feature: str) -> Want:
    """A request for one thing that some surfaces have a word for; or for nothing but an answer."""
    return {
        "stream": Want(),
        "plain": Want(stream=False),
        "image": Want(image=True),
        "stop": Want(stop=("END", "漢")),
        "schema": Want(schema=SCHEMA),
        "tools": Want(tools=True),
        "system": Want(system="be brief"),
        "history": Want(history=True, tools=True),
    }[feature]


def image_by_url(name: str) -> Json:
    """The field of a request in that surface that shows an image which the upstream would have to fetch."""
    if name == "messages":
        source = {"type": "url", "url": IMAGE_URL}
        return {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]}
    if name == "responses":
        return {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE_URL}]}]}
    image = {"type": "image_url", "image_url": {"url": IMAGE_URL}}
    return {"messages": [{"role": "user", "content": [image]}]}
