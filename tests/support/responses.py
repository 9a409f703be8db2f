"""A Responses stream as a careful client checks it, whoever answers.

In: decoded events, in order. Out: the final response. Must not: know what was asked.
"""

from collections import defaultdict
from typing import Any, get_args

from openai.types.responses import ResponseStreamEvent

from support.faults import payload
from support.raw import Answer

Json = dict[str, Any]

CHAT: Json = {"surfaces": ["chat"]}
OLLAMA: Json = {"surfaces": ["ollama_chat"]}
MESSAGES: Json = {"surfaces": ["messages"]}

# The SDK's own model of each event, which it does not enforce by itself.
_MODELS = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(ResponseStreamEvent)[0])
}
_FINAL = ("response.completed", "response.incomplete", "response.failed")
# By the last word but one of its type, where a delta's text ends up in the event that ends it.
_WHOLE = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
}


def well_formed(events: list[Json]) -> Json:
    """Insist that this is one whole stream; its final response."""
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [kind for kind in kinds if kind in _FINAL] == [kinds[-1]]
    for event in events:
        _MODELS[event["type"]].model_validate(event)
    early, first, final = events[0]["response"], events[1]["response"], events[-1]["response"]
    if early != first:  # Edge's own, sent before the upstream had begun: what the request asked for follows
        assert early == {**early, **{name: first[name] for name in _AT_ONCE}}
        assert (early["tools"], early["instructions"]) == ([], None)
    assert first["status"] == "in_progress"
    assert (first["output"], first["usage"]) == ([], None)
    assert kinds[-1] == f"response.{final['status']}"
    assert {key: value for key, value in final.items() if key not in _MOVING} == {
        key: value for key, value in first.items() if key not in _MOVING
    }
    output = [_whole_item(events, index) for index in range(len(final["output"]))]
    assert output == final["output"]
    assert max((event.get("output_index", 0) for event in events), default=0) < max(len(output), 1)
    identities = [item["id"] for item in output]
    calls = [item["call_id"] for item in output if "call_id" in item]
    assert (len(set(identities)), len(set(calls))) == (len(identities), len(calls))
    return dict(final)


_AT_ONCE = ("id", "object", "created_at", "status", "model", "output", "usage", "error")
_MOVING = ("status", "output", "usage", "incomplete_details")


def _whole_item(events: list[Json], index: int) -> Json:
    """Follow one item from its beginning to its end."""
    about = [event for event in events if event.get("output_index") == index]
    assert [event["type"] for event in about].count("response.output_item.added") == 1
    assert [event["type"] for event in about].count("response.output_item.done") == 1
    added, *between, done = about
    assert (added["type"], done["type"]) == ("response.output_item.added", "response.output_item.done")
    item = done["item"]
    assert added["item"]["status"] == "in_progress"
    assert {key: added["item"][key] for key in ("id", "type")} == {key: item[key] for key in ("id", "type")}
    assert {event["item_id"] for event in between} <= {item["id"]}
    _whole_parts(between, item.get("content", []))
    for field in ("arguments", "input"):
        if field in item:
            assert _joined(between)[f"response.{_name(field)}", None] == item[field]
    return dict(item)


def _name(field: str) -> str:
    return next(name for name, whole in _WHOLE.items() if whole == field)


def _whole_parts(between: list[Json], content: list[Json]) -> None:
    added = [event["part"] for event in between if event["type"] == "response.content_part.added"]
    done = [event["part"] for event in between if event["type"] == "response.content_part.done"]
    assert len(added) == len(done)
    assert done == content
    pieces = _joined(between)
    for number, (empty, part) in enumerate(zip(added, done, strict=True)):
        name = part["type"]
        assert (empty["type"], empty[_WHOLE[name]]) == (name, "")
        assert pieces[f"response.{name}", number] == part[_WHOLE[name]]
        told = [
            event["annotation"]
            for event in between
            if event["type"] == "response.output_text.annotation.added" and event["content_index"] == number
        ]
        assert told == part.get("annotations", [])


def _joined(between: list[Json]) -> dict[tuple[str, Any], str]:
    """Deltas joined; each must have been told whole, once, after them."""
    pieces: defaultdict[tuple[str, Any], str] = defaultdict(str)
    whole: dict[tuple[str, Any], str] = {}
    for event in between:
        base, _, last = event["type"].rpartition(".")
        key = (base, event.get("content_index"))
        if last == "delta":
            assert key not in whole
            pieces[key] += event["delta"]
        elif last == "done" and base != "response.content_part":
            assert key not in whole
            whole[key] = event[_WHOLE[base.removeprefix("response.")]]
    assert {key: text for key, text in whole.items() if text} == {key: text for key, text in pieces.items() if text}
    for key, text in whole.items():
        pieces[key] = text
    return pieces


def events_of(answer: Answer) -> list[Json]:
    """What a client reads, each event under the name that its payload tells; heartbeats left out."""
    told = []
    for event in answer.events:
        if event.startswith(b":"):
            continue
        decoded = payload(event)
        assert event.startswith(b"event: " + decoded["type"].encode() + b"\n")
        if decoded["type"] != "keepalive":
            told.append(decoded)
    return told


def texts_of(response: Json) -> list[tuple[str, str]]:
    """What a response says: of each item its type, and its text, name of the tool or thought."""
    said = []
    for item in response["output"]:
        content = [part.get("text", part.get("refusal")) for part in item.get("content", [])]
        said.append((item["type"], "".join(content) if content else item.get("arguments", item.get("input", ""))))
    return said


def asked(**fields: Any) -> Json:
    """A request."""
    return {"model": "m", "input": "hi", **fields}
