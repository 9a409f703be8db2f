"""Responses requests, into the canonical request.

In: the decoded body of one. Out: an ``Ask``. Must not: promise what would need a store of responses.
Format: https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Any

from edge.protocol.canonical import Ask, Format, Thinking
from edge.protocol.fields import Fields
from edge.protocol.request import NOT_STORED
from edge.protocol.responses.parse_input import Reading
from edge.protocol.responses.tools import read_choice, read_tools
from edge.protocol.sampling import read_sampling

# Of no meaning to another surface, or only repeated in the response.
_SETTLED = (
    "stream", "stream_options", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "client_metadata", "background_options",
)  # fmt: skip
# What would be missed, and why it cannot be had.
_REFUSED = {
    "store": "no responses are stored here; leave it out or send false",
    "background": NOT_STORED,
    "previous_response_id": "no responses are stored here; send the whole conversation as input",
    "conversation": "no conversations are stored here; send the whole conversation as input",
    "prompt": "no prompts are stored here; send the text as instructions and input",
    "moderation": "this upstream does not moderate; leave it out",
    "logprobs": "log probabilities cannot be carried across from this upstream; leave it out",
}
# Fields of the request that the response repeats, and what stands there if they were not given.
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_SEALED = "reasoning.encrypted_content"  # of ``include``: the client wants thoughts that it can send back
_LOGPROBS = "message.output_text.logprobs"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def parse(body: dict[str, Any]) -> Ask:
    """Read a request.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    fields.known(*_SETTLED)
    _refuse(fields)
    reading = Reading()
    reading.read(fields)
    offered = read_tools(fields, *reading.tools)
    choice, tools = read_choice(fields, offered)
    text = fields.object("text") or Fields({}, "text.")
    ask = Ask(
        model=fields.text("model"),
        messages=reading.messages,
        tools=tools,
        tool_choice=choice,
        parallel_tools=fields.flag("parallel_tool_calls"),
        format=_format(text),
        thinking=_thinking(fields),
        max_tokens=fields.whole("max_output_tokens", 1),
        names={
            "max_tokens": "max_output_tokens", "parallel_tools": "parallel_tool_calls", "format": "text.format",
            "thinking": "reasoning.effort", "messages": "input",
        },
    )  # fmt: skip
    read_sampling(fields, ask)
    ask.ignored = [*_without_effect(fields, text), *offered.dropped, *reading.dropped]
    ask.extra = fields.rest()
    sealed = _SEALED in fields.texts("include")
    ask.echo = {"response": _echoed(body), "sealed": sealed, "spellings": offered.spellings}
    return ask


def _refuse(fields: Fields) -> None:
    for name in ("store", "background", "logprobs"):
        if fields.flag(name):
            raise fields.wrong(name, _REFUSED[name])
    for name in ("previous_response_id", "conversation", "prompt", "moderation"):
        if fields.any(name) is not None:
            raise fields.wrong(name, _REFUSED[name])
    if fields.whole("top_logprobs", 0, 20):
        raise fields.wrong("top_logprobs", _REFUSED["logprobs"])
    if _LOGPROBS in fields.texts("include"):
        raise fields.wrong("include", f"{_LOGPROBS}: {_REFUSED['logprobs']}")
    if fields.whole("n", 1) not in (None, 1):
        raise fields.wrong("n", "a response is one answer; ask again for another")


def _without_effect(fields: Fields, text: Fields) -> list[str]:
    """What is named to the client; it changes how an answer is made, not what it means."""
    given = {
        "truncation": fields.one_of("truncation", "auto", "disabled") == "auto",
        "text.verbosity": text.one_of("verbosity", "low", "medium", "high") not in (None, "medium"),
        "context_management": bool(fields.objects("context_management")),
        "max_tool_calls": fields.whole("max_tool_calls", 1) is not None,
    }
    fields.object("metadata")  # repeated in the response, so it must be what the response may hold
    return [name for name, payload in given.items() if payload]


def _echoed(body: dict[str, Any]) -> dict[str, Any]:
    fields = {name: default if body.get(name) is None else body[name] for name, default in _ECHOED.items()}
    return {**fields, **{name: {**_ECHOED[name], **fields[name]} for name in ("reasoning", "text")}}


def _format(text: Fields) -> Format | None:
    wanted = text.object("format")
    if wanted is None:
        return None
    match wanted.one_of("type", "text", "json_object", "json_schema"):
        case "json_object":
            return Format()
        case "json_schema":
            schema = wanted.needed_object("schema").body
            return Format(schema, wanted.text("name") or "answer", wanted.flag("strict"))
    return None


def _thinking(fields: Fields) -> Thinking | None:
    """The effort; a summary is not made, since the thoughts themselves are given."""
    reasoning = fields.object("reasoning")
    if reasoning is None:
        return None
    effort = reasoning.one_of("effort", *_EFFORTS)
    return None if effort is None else Thinking(effort != "none", effort)
