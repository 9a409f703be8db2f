"""How a model server says a thing, by the surface it is asked in, and how it reads what it was asked.

In: ``Said``, or the body of a request. Out: events, bodies, and ``Heard``. Must not: know which client is asking.
A new one needs a class here and a place in ``table.CELLS``.
"""

from itertools import zip_longest
from typing import Protocol

import orjson
from cross.matrix.said import Heard, Json, Said
from fakes import ollama
from fakes.answers import (
    DONE,
    chat_body,
    chat_chunk,
    chat_delta,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    completion_body,
    completion_chunk,
    completion_finish,
    completion_token,
    completion_usage,
    messages_block_start,
    messages_block_stop,
    messages_body,
    messages_delta,
    messages_error,
    messages_event,
    messages_start,
    messages_stop,
    messages_token,
    responses_body,
    responses_event,
    responses_events,
    sse_error,
)
from fakes.steps import Step, head


class Tongue(Protocol):
    """One surface, as model servers speak it.

    Attributes:
        thinks: It can tell thought from text.
        calls: It has tool calls.
        names_stop: It tells which stop sequence has ended the answer.
    """

    path: str
    thinks: bool
    calls: bool
    names_stop: bool

    def head(self) -> Step:
        """What begins a stream."""

    def events(self, said: Said) -> list[bytes]:
        """A whole stream."""

    def begun(self, *words: str) -> list[bytes]:
        """The start of one."""

    def whole(self, text: str) -> Json:
        """An answer in one body."""

    def error(self, message: str) -> bytes:
        """What breaks a stream."""

    def refusal(self, message: str) -> Json:
        """The body of an HTTP error."""

    def heard(self, body: Json) -> Heard:
        """What was asked."""


def pieces(said: Said) -> list[list[tuple[int, str]]]:
    """Of each call: its arguments, a character at a time, each with the number of its call."""
    return [[(number, char) for char in orjson.dumps(given).decode()] for number, (_, given) in enumerate(said.calls)]


def chat_history(messages: list[Json]) -> tuple[tuple[object, ...], ...]:
    """What was said before the last message, in the messages of chat completions or of Ollama."""
    told: list[tuple[object, ...]] = []
    names: dict[str, str] = {}
    for message in messages[:-1]:
        if message["role"] == "tool":
            name = names[message["tool_call_id"]] if "tool_call_id" in message else message["tool_name"]
            told.append(("result", name, message["content"]))
        elif message["role"] != "system":
            told.append((message["role"], message["content"]))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            given = function["arguments"]
            names[call.get("id", "")] = function["name"]
            told.append(("call", function["name"], orjson.loads(given) if isinstance(given, str) else given))
    return tuple(told)


class Chat:
    path = "/v1/chat/completions"
    thinks = calls = names_stop = True

    def head(self) -> Step:
        return head()

    def events(self, said: Said) -> list[bytes]:
        thought = [chat_delta({"reasoning_content": piece}) for piece in said.thought]
        told = [chat_role(), *thought, *map(chat_token, said.words), *self._calls(said)]
        finish = "tool_calls" if said.calls else said.finish
        last = {"index": 0, "delta": {}, "finish_reason": finish, "stop_reason": said.stop_sequence}
        return [*told, chat_chunk([last]) if said.stop_sequence else chat_finish(finish), chat_usage(), DONE]

    def begun(self, *words: str) -> list[bytes]:
        return [chat_role(), *map(chat_token, words)]

    def whole(self, text: str) -> Json:
        return chat_body(text)

    def error(self, message: str) -> bytes:
        return sse_error(message)

    def refusal(self, message: str) -> Json:
        return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}

    def heard(self, body: Json) -> Heard:
        system = [message["content"] for message in body["messages"] if message["role"] == "system"]
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        wanted = body.get("response_format")
        stop = body.get("stop") or ()
        return Heard(
            "".join(part["text"] for part in parts if part["type"] == "text"),
            "".join(system),
            tuple(image.removeprefix("data:image/png;base64,") for image in images),
            (stop,) if isinstance(stop, str) else tuple(stop),
            wanted and wanted["json_schema"]["schema"],
            tuple(tool["function"]["name"] for tool in body.get("tools") or ()),
            chat_history(body["messages"]),
        )

    def _calls(self, said: Said) -> list[bytes]:
        def begin(number: int, name: str) -> bytes:
            function = {"name": name, "arguments": ""}
            return chat_delta({"tool_calls": [{"index": number, "id": f"c{number}", "type": "function",
                                               "function": function}]})  # fmt: skip

        def argue(number: int, piece: str) -> bytes:
            return chat_delta({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})

        begun = [begin(number, name) for number, (name, _) in enumerate(said.calls)]
        argued = [[argue(*piece) for piece in own] for own in pieces(said)]
        if said.mixed:
            return [*begun, *(piece for turn in zip_longest(*argued) for piece in turn if piece is not None)]
        return [event for start, own in zip(begun, argued, strict=True) for event in [start, *own]]


class Completions:
    path = "/v1/completions"
    thinks = calls = names_stop = False

    def head(self) -> Step:
        return head()

    def events(self, said: Said) -> list[bytes]:
        return [*map(completion_token, said.words), completion_finish(said.finish), completion_usage(), DONE]

    def begun(self, *words: str) -> list[bytes]:
        return [completion_chunk([{"index": 0, "text": "", "finish_reason": None}]), *map(completion_token, words)]

    def whole(self, text: str) -> Json:
        return completion_body(text)

    def error(self, message: str) -> bytes:
        return sse_error(message)

    def refusal(self, message: str) -> Json:
        return Chat().refusal(message)

    def heard(self, body: Json) -> Heard:
        stop = body.get("stop") or ()
        return Heard(body["prompt"], stop=(stop,) if isinstance(stop, str) else tuple(stop))


class Messages:
    path = "/v1/messages"
    thinks = calls = names_stop = True
    _reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}  # noqa: RUF012 - never changed

    def head(self) -> Step:
        return head()

    def events(self, said: Said) -> list[bytes]:
        blocks = []
        if said.thought:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.thought]
            signed = {"type": "signature_delta", "signature": "sig"}
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]))
        if said.words:
            blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in said.words]))
        for number, ((name, given), own) in enumerate(zip(said.calls, pieces(said), strict=True)):
            use = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
            told = [piece for _, piece in own] if given else [""]  # as Anthropic calls a tool without an input
            blocks.append((use, [{"type": "input_json_delta", "partial_json": piece} for piece in told]))
        reason = self._reasons["tool_calls" if said.calls else said.finish]
        ended = messages_delta(reason)
        if said.stop_sequence:
            delta = {"stop_reason": "stop_sequence", "stop_sequence": said.stop_sequence}
            ended = messages_event("message_delta", delta=delta, usage={"output_tokens": 3})
        events = [event for index, block in enumerate(blocks) for event in self._block(index, *block)]
        return [messages_start(), *events, ended, messages_stop()]

    def begun(self, *words: str) -> list[bytes]:
        return [messages_start(), messages_block_start(), *map(messages_token, words)]

    def whole(self, text: str) -> Json:
        return messages_body(text)

    def error(self, message: str) -> bytes:
        return messages_error(message)

    def refusal(self, message: str) -> Json:
        return {"type": "error", "error": {"type": "api_error", "message": message}}

    def heard(self, body: Json) -> Heard:
        content = body["messages"][-1]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        sources = [block["source"] for block in blocks if block["type"] == "image"]
        wanted = body.get("output_config")
        return Heard(
            "".join(block["text"] for block in blocks if block["type"] == "text"),
            body.get("system", ""),
            tuple(source.get("data") or source["url"] for source in sources),
            tuple(body.get("stop_sequences") or ()),
            wanted and wanted["format"]["schema"],
            tuple(tool["name"] for tool in body.get("tools") or ()),
            self._history(body["messages"]),
        )

    def _history(self, messages: list[Json]) -> tuple[tuple[object, ...], ...]:
        told: list[tuple[object, ...]] = []
        names: dict[str, str] = {}
        for message in messages[:-1]:
            content = message["content"]
            for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                match block["type"]:
                    case "text":
                        told.append((message["role"], block["text"]))
                    case "tool_use":
                        names[block["id"]] = block["name"]
                        told.append(("call", block["name"], block["input"]))
                    case "tool_result":
                        given = block["content"]
                        text = given if isinstance(given, str) else "".join(part["text"] for part in given)
                        told.append(("result", names[block["tool_use_id"]], text))
        return tuple(told)

    def _block(self, index: int, begun: Json, deltas: list[Json]) -> list[bytes]:
        start = messages_event("content_block_start", index=index, content_block=begun)
        told = [messages_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        return [start, *told, messages_block_stop(index)]


class OllamaChat:
    path = "/api/chat"
    thinks = calls = True
    names_stop = False

    def head(self) -> Step:
        return ollama.lines_head()

    def events(self, said: Said) -> list[bytes]:
        thought = [ollama.said(thinking=piece) for piece in said.thought]
        calls = [{"function": {"name": name, "arguments": given}} for name, given in said.calls]
        called = [ollama.said(tool_calls=calls)] if calls else []
        reason = "stop" if said.finish == "tool_calls" else said.finish
        return [*thought, *map(ollama.token, said.words), *called, ollama.last(reason)]

    def begun(self, *words: str) -> list[bytes]:
        return [*map(ollama.token, words)]

    def whole(self, text: str) -> Json:
        told: Json = orjson.loads(ollama.last())
        return {**told, "message": {"role": "assistant", "content": text}}

    def error(self, message: str) -> bytes:
        return ollama.error(message)

    def refusal(self, message: str) -> Json:
        return {"error": message}

    def heard(self, body: Json) -> Heard:
        system = [message["content"] for message in body["messages"] if message["role"] == "system"]
        user = body["messages"][-1]
        return Heard(
            user["content"],
            "".join(system),
            tuple(user.get("images") or ()),
            tuple(body.get("options", {}).get("stop") or ()),
            body.get("format"),
            tuple(tool["function"]["name"] for tool in body.get("tools") or ()),
            chat_history(body["messages"]),
        )


class OllamaGenerate(OllamaChat):
    path = "/api/generate"
    calls = False

    def events(self, said: Said) -> list[bytes]:
        thought = [
            ollama.line({"model": "m", "created_at": ollama.AT, "response": "", "thinking": piece, "done": False})
            for piece in said.thought
        ]
        return [*thought, *map(ollama.generated, said.words), ollama.generated_last(said.finish)]

    def begun(self, *words: str) -> list[bytes]:
        return [*map(ollama.generated, words)]

    def whole(self, text: str) -> Json:
        told: Json = orjson.loads(ollama.generated_last())
        return {**told, "response": text}

    def heard(self, body: Json) -> Heard:
        stop = tuple(body.get("options", {}).get("stop") or ())
        return Heard(body["prompt"], body.get("system", ""), tuple(body.get("images") or ()), stop, body.get("format"))


class Responses:
    """As OpenAI speaks it; the fake's streams hold text, which is enough for what is relayed."""

    path = "/v1/responses"
    thinks = calls = names_stop = False

    def head(self) -> Step:
        return head()

    def events(self, said: Said) -> list[bytes]:
        *events, last = responses_events(said.words)
        if said.finish != "length":
            return [*events, last]
        cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        response = {**responses_body("".join(said.words)), **cut}
        return [*events, responses_event("response.incomplete", len(events), response=response)]

    def begun(self, *words: str) -> list[bytes]:
        return responses_events(words)[: 4 + len(words)]

    def whole(self, text: str) -> Json:
        return responses_body(text)

    def error(self, message: str) -> bytes:
        return responses_event("error", 5, code="server_error", message=message, param=None)

    def refusal(self, message: str) -> Json:
        return Chat().refusal(message)

    def heard(self, body: Json) -> Heard:
        *before, user = body["input"]
        images = [part["image_url"] for part in user["content"] if part["type"] == "input_image"]
        wanted = body.get("text")
        names = {item["call_id"]: item["name"] for item in before if item.get("type") == "function_call"}
        told: list[tuple[object, ...]] = []
        for item in before:
            match item.get("type"):
                case "function_call":
                    told.append(("call", item["name"], orjson.loads(item["arguments"])))
                case "function_call_output":
                    told.append(("result", names[item["call_id"]], item["output"]))
                case _:
                    told.append((item["role"], item["content"]))
        return Heard(
            user["content"][0]["text"],
            body.get("instructions", ""),
            tuple(image.removeprefix("data:image/png;base64,") for image in images),
            tuple(body.get("stop") or ()),
            wanted and wanted["format"]["schema"],
            tuple(tool["name"] for tool in body.get("tools") or ()),
            tuple(told),
        )
