"""Records the llama.cpp golden pairs again, from a real server: python tests/golden/capture.py http://127.0.0.1:8080.

In: the address of a llama.cpp server set up as README.md says. Out: ``llama_cpp/<name>.request.json`` (what is asked),
``.sse`` (the bytes of the streamed answer) and ``.json`` (the server's own answer to the same, not streamed).
Must not: touch up what the server said.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "llama_cpp"
TIMEOUT_S = 120  # a small model on a busy machine

# Greedy and seeded: both answers are then the same text.
FIXED = {"temperature": 0, "seed": 7, "cache_prompt": False}
ASK = [{"role": "user", "content": "Name three colours, please."}]
PONDER = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
COMPLETE = "The three primary colours are"
CITY = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}}, "required": ["city"]}
FUNCTION = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": CITY}}
TOOL = {"name": "get_weather", "description": "Weather.", "input_schema": CITY}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "warm": {"type": "boolean"}},
    "required": ["colour", "warm"],
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR}}
THINK = {"chat_template_kwargs": {"think_aloud": True}}


def asked(*cities: str) -> dict[str, Any]:
    return {"role": "user", "content": f"Weather in {' and '.join(cities)}?"}


def chat_turn(*cities: str) -> list[dict[str, Any]]:
    """One exchange with tool calls; a model this small calls tools only if it has seen it done."""
    calls = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps({"city": c})},
        }
        for i, c in enumerate(cities)
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sun"} for call in calls]
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    return [asked(*cities), called, *results, {"role": "assistant", "content": "Sun."}]


def messages_turn(*cities: str) -> list[dict[str, Any]]:
    """The same in the Anthropic shape."""
    uses = [
        {"type": "tool_use", "id": f"call_{i}", "name": "get_weather", "input": {"city": c}}
        for i, c in enumerate(cities)
    ]
    results = [{"type": "tool_result", "tool_use_id": use["id"], "content": "sun"} for use in uses]
    called = {"role": "assistant", "content": uses}
    return [asked(*cities), called, {"role": "user", "content": results}, {"role": "assistant", "content": "Sun."}]


ONE = [*chat_turn("Rome"), *chat_turn("Oslo"), *chat_turn("Rome"), asked("Oslo")]
TWO = [*chat_turn("Rome", "Oslo"), *chat_turn("Oslo", "Rome"), *chat_turn("Rome", "Oslo"), asked("Oslo", "Rome")]
USES = [*messages_turn("Rome", "Oslo"), *messages_turn("Oslo", "Rome"), *messages_turn("Rome", "Oslo")]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat_plain": (CHAT, {"messages": ASK, "max_tokens": 20}),
    "chat_n2": (CHAT, {"messages": ASK, "max_tokens": 20, "n": 2, "temperature": 1.5, "stop": [":"]}),
    "chat_logprobs": (CHAT, {"messages": ASK, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}),
    "chat_length": (CHAT, {"messages": ASK, "max_tokens": 3}),
    "chat_stop": (CHAT, {"messages": ASK, "max_tokens": 40, "stop": [":"]}),
    "chat_empty": (CHAT, {"messages": ASK, "max_tokens": 40, "stop": ["H"]}),
    "chat_json_schema": (CHAT, {"messages": ASK, "max_tokens": 60, "response_format": SCHEMA}),
    "chat_tool": (CHAT, {"messages": ONE, "max_tokens": 60, "tools": [FUNCTION]}),
    "chat_tools": (CHAT, {"messages": TWO, "max_tokens": 90, "tools": [FUNCTION], "parallel_tool_calls": True}),
    "chat_reasoning": (CHAT, {"messages": PONDER, "max_tokens": 12, **THINK}),
    "completions_plain": (COMPLETIONS, {"prompt": COMPLETE, "max_tokens": 16}),
    "completions_n2": (COMPLETIONS, {"prompt": COMPLETE, "max_tokens": 8, "n": 2}),
    "completions_logprobs": (COMPLETIONS, {"prompt": COMPLETE, "max_tokens": 5, "logprobs": 2}),
    "completions_prompts": (COMPLETIONS, {"prompt": [COMPLETE, "Once upon a time"], "max_tokens": 16, "stop": [","]}),
    "messages_plain": (MESSAGES, {"messages": ASK, "max_tokens": 12}),
    "messages_stop": (MESSAGES, {"messages": ASK, "max_tokens": 40, "stop_sequences": [":"]}),
    "messages_tools": (MESSAGES, {"messages": [*USES, asked("Oslo", "Rome")], "max_tokens": 90, "tools": [TOOL]}),
    "messages_thinking": (MESSAGES, {"messages": PONDER, "max_tokens": 12, **THINK}),
    "responses_plain": (RESPONSES, {"input": "Name three colours, please.", "max_output_tokens": 12}),
}


def streamed(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request as Edge sends it upstream."""
    if path in (CHAT, COMPLETIONS):
        return {**request, "stream": True, "stream_options": {"include_usage": True}}
    return {**request, "stream": True}


def post(base: str, path: str, body: dict[str, Any]) -> bytes:
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(base + path, json.dumps(body).encode(), head)  # noqa: S310 - the user's own server
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        return bytes(response.read())


def pretty(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def main(base: str) -> None:
    HERE.mkdir(exist_ok=True)
    for name, (path, extra) in CASES.items():
        request = {**FIXED, **extra}
        # Messages has no switch for the prompt cache: warm it, so that both answers count the same cached tokens.
        post(base, path, request)
        stream = post(base, path, streamed(path, request))
        answer = post(base, path, request)
        (HERE / f"{name}.request.json").write_text(pretty({"path": path, "body": request}))
        (HERE / f"{name}.sse").write_bytes(stream)
        (HERE / f"{name}.json").write_text(pretty(json.loads(answer)))
        print(name, len(stream), len(answer))  # noqa: T201 - a script tells what it did


if __name__ == "__main__":
    main(sys.argv[1])
