"""What a model server says: events and bodies of each surface, in the style of llama.cpp and vLLM (compact JSON).

In: words. Out: bytes of one event, lists of them, or JSON bodies. Must not: know sockets or HTTP.
"""

from typing import Any

import orjson

Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"
WORDS = ("Hel", "lo", " there")


def sse(payload: Json, event: str | None = None) -> bytes:
    """One event."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + orjson.dumps(payload) + b"\n\n"


def sse_error(message: str = "the model broke", *, code: int | str = 500, type_: str = "server_error") -> bytes:
    """An OpenAI-shaped error inside a stream."""
    return sse({"error": {"message": message, "type": type_, "param": None, "code": code}})


def usage_body(prompt: int, completion: int, cached: int | None = None) -> Json:
    body: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return body if cached is None else {**body, "prompt_tokens_details": {"cached_tokens": cached}}


# Chat completions


def chat_chunk(choices: list[Json], model: str = "m", **extra: Any) -> bytes:
    return sse(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": model,
            "choices": choices,
            **extra,
        }
    )


def chat_delta(delta: Json, index: int = 0, finish: str | None = None, **extra: Any) -> bytes:
    return chat_chunk([{"index": index, "delta": delta, "finish_reason": finish}], **extra)


def chat_role(index: int = 0) -> bytes:
    return chat_delta({"role": "assistant", "content": ""}, index)


def chat_token(text: str, index: int = 0, **extra: Any) -> bytes:
    return chat_delta({"content": text}, index, **extra)


def chat_finish(reason: str = "stop", index: int = 0) -> bytes:
    return chat_delta({}, index, reason)


def chat_usage(prompt: int = 7, completion: int = 3, cached: int | None = None) -> bytes:
    return chat_chunk([], usage=usage_body(prompt, completion, cached))


def chat_events(words: list[str] | tuple[str, ...] = WORDS, *, usage: bool = True) -> list[bytes]:
    tokens = [chat_token(word) for word in words]
    last = [chat_usage(completion=len(words))] if usage else []
    return [chat_role(), *tokens, chat_finish(), *last, DONE]


def chat_body(text: str = "".join(WORDS)) -> Json:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": usage_body(7, 3),
    }


# Completions


def completion_chunk(choices: list[Json], **extra: Any) -> bytes:
    return sse(
        {
            "id": "cmpl-fake",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": "m",
            "choices": choices,
            **extra,
        }
    )


def completion_token(text: str, index: int = 0, finish: str | None = None) -> bytes:
    return completion_chunk([{"index": index, "text": text, "logprobs": None, "finish_reason": finish}])


def completion_finish(reason: str = "stop", index: int = 0) -> bytes:
    return completion_token("", index, reason)


def completion_usage(prompt: int = 7, completion: int = 3) -> bytes:
    return completion_chunk([], usage=usage_body(prompt, completion))


def completion_events(words: list[str] | tuple[str, ...] = WORDS, *, usage: bool = True) -> list[bytes]:
    last = [completion_usage(completion=len(words))] if usage else []
    return [*(completion_token(word) for word in words), completion_finish(), *last, DONE]


def completion_body(text: str = "".join(WORDS)) -> Json:
    return {
        "id": "cmpl-fake",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage_body(7, 3),
    }


# Anthropic Messages


def messages_event(type_: str, **fields: Any) -> bytes:
    return sse({"type": type_, **fields}, type_)


def messages_start(prompt: int = 7) -> bytes:
    return messages_event("message_start", message=messages_body(None, prompt, 0))


def messages_block_start(index: int = 0) -> bytes:
    return messages_event("content_block_start", index=index, content_block={"type": "text", "text": ""})


def messages_token(text: str, index: int = 0) -> bytes:
    return messages_event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def messages_block_stop(index: int = 0) -> bytes:
    return messages_event("content_block_stop", index=index)


def messages_delta(reason: str = "end_turn", completion: int = 3) -> bytes:
    return messages_event(
        "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": completion}
    )


def messages_stop() -> bytes:
    return messages_event("message_stop")


def messages_ping() -> bytes:
    return messages_event("ping")


def messages_error(message: str = "the model broke", type_: str = "api_error") -> bytes:
    return messages_event("error", error={"type": type_, "message": message})


def messages_events(words: list[str] | tuple[str, ...] = WORDS, prompt: int = 7) -> list[bytes]:
    tokens = [messages_token(word) for word in words]
    ending = [messages_block_stop(), messages_delta(completion=len(words)), messages_stop()]
    return [messages_start(prompt), messages_block_start(), *tokens, *ending]


def messages_body(text: str | None = "".join(WORDS), prompt: int = 7, completion: int = 3) -> Json:
    """The message; without text, as it stands at the start of a stream."""
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": None if text is None else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": completion},
    }


# Responses


def responses_event(type_: str, sequence_number: int, **fields: Any) -> bytes:
    return sse({"type": type_, "sequence_number": sequence_number, **fields}, type_)


def responses_body(text: str | None = "".join(WORDS), prompt: int = 7) -> Json:
    """The response; without text, as it stands at the start of a stream."""
    done = text is not None
    counts = {"input_tokens": prompt, "output_tokens": 3, "total_tokens": prompt + 3}
    details = {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed" if done else "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "m",
        "output": [_responses_item(text)] if text is not None else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {**counts, **details} if done else None,
    }


def _responses_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _responses_item(text: str | None) -> Json:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "status": "in_progress" if text is None else "completed",
        "content": [] if text is None else [_responses_part(text)],
    }


def responses_events(words: list[str] | tuple[str, ...] = WORDS, prompt: int = 7) -> list[bytes]:
    """A complete stream, numbered from 0: eight events around one for each word."""
    text = "".join(words)
    at = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    plan: list[tuple[str, Json]] = [
        ("response.created", {"response": responses_body(None)}),
        ("response.in_progress", {"response": responses_body(None)}),
        ("response.output_item.added", {"output_index": 0, "item": _responses_item(None)}),
        ("response.content_part.added", {**at, "part": _responses_part("")}),
        *(("response.output_text.delta", {**at, "delta": word, "logprobs": []}) for word in words),
        ("response.output_text.done", {**at, "text": text, "logprobs": []}),
        ("response.content_part.done", {**at, "part": _responses_part(text)}),
        ("response.output_item.done", {"output_index": 0, "item": _responses_item(text)}),
        ("response.completed", {"response": responses_body(text, prompt)}),
    ]
    return [responses_event(type_, number, **fields) for number, (type_, fields) in enumerate(plan)]


# The rest


def models_body(models: list[str]) -> Json:
    data = [{"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for model in models]
    return {"object": "list", "data": data}


def embeddings_body() -> Json:
    vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
    return {"object": "list", "model": "m", "data": [vector], "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def short_answer(path: str, body: Json) -> Json | list[bytes] | None:
    """A short valid answer: a list of events for a stream, else a JSON body; None for an unknown path."""
    stream = bool(body.get("stream"))
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    answers: dict[str, Json | list[bytes]] = {
        "/v1/chat/completions": chat_events(usage=usage) if stream else chat_body(),
        "/v1/completions": completion_events(usage=usage) if stream else completion_body(),
        "/v1/messages": messages_events() if stream else messages_body(),
        "/v1/responses": responses_events() if stream else responses_body(),
        "/v1/embeddings": embeddings_body(),
        "/v1/messages/count_tokens": {"input_tokens": 7},
    }
    return answers.get(path)
