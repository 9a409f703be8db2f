"""What requests of the OpenAI and Anthropic surfaces, and of the session API, may hold.

In: nothing. Out: JSON schemas by name: the fields that Edge reads, of all upstreams together. Must not: list what is
passed on unread; a server behind Edge may know more fields, and those pass.
"""

from edge.api.openapi_schema import Schema, anything, either, flag, items, number, record, ref, text, whole, word
from edge.policy.auth.tickets import MOST_TTL_S
from edge.protocol.session.parse import DEFAULT_SESSION, SESSION_PATTERN

_MODEL = text("A model of /v1/models; may be left out where there is one upstream.")
_STREAM = flag("Server-sent events instead of one JSON answer.")
_NO_STREAM = word(False, about="These answers are never streamed.")
_OPTIONS = anything("Ollama's options, for an Ollama: num_ctx, …")
_KEEP_ALIVE = either(
    {"type": ["string", "number", "null"]}, about="For an Ollama: how long the model stays loaded, as 5m or in seconds."
)
_STOP = either(text(), items(text(needed=True)), about="One or more texts that end the answer.")
_SAMPLING: Schema = {
    "temperature": number(0),
    "top_p": number(0, 1),
    "top_k": whole(),
    "min_p": number(0, 1),
    "seed": whole(),
    "stop": _STOP,
    "presence_penalty": number(),
    "frequency_penalty": number(),
    "user": text(),
}
_USAGE = record(
    {"include_usage": flag("The last event has the token counts.")}, about="Of a stream.", optional=True
)  # fmt: skip
_TOKENS = items(whole(0, needed=True), "Token numbers; for upstreams that take them.", needed=True, minItems=1)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


# Fields that matter in a translation alone: Edge follows them, drops and names them, or refuses them by name.
_IN_TRANSLATIONS = {
    "ChatRequest": (
        "audio", "function_call", "functions", "modalities", "prediction", "prompt_logprobs", "web_search_options",
    ),
    "ResponsesRequest": (
        "background", "context_management", "conversation", "frequency_penalty", "include", "keep_alive", "logprobs",
        "max_tool_calls", "min_p", "moderation", "n", "options", "presence_penalty", "previous_response_id", "prompt",
        "prompt_cache_key", "safety_identifier", "seed", "service_tier", "stop", "top_k", "top_logprobs", "truncation",
    ),
    "MessagesRequest": (
        "container", "context_management", "inference_geo", "mcp_servers", "n", "output_format", "speed",
        "user_profile_id",
    ),
}  # fmt: skip
_IN_A_TRANSLATION = "Relayed as it is. In a translation Edge follows it, drops and names it, or refuses it by name."


def schemas() -> dict[str, Schema]:
    """All of them."""
    found = _schemas()
    for name, fields in _IN_TRANSLATIONS.items():
        found[name]["properties"] |= {field: {"description": _IN_A_TRANSLATION} for field in fields}
    return found


def _schemas() -> dict[str, Schema]:
    return {
        "ChatRequest": _chat(),
        "ChatMessage": _chat_message(),
        "ChatTool": _chat_tool(),
        "CompletionRequest": _completion(),
        "EmbeddingsRequest": _embeddings(),
        "ResponsesRequest": _responses(),
        "MessagesRequest": _messages(most=("max_tokens",), stream=_STREAM),
        "CountTokensRequest": _messages(most=(), stream=_NO_STREAM),
        "Message": _message(),
        "Block": _block(),
        "RelayedRequest": record({"model": _MODEL}, about="As the server has it."),
        "Upload": record(
            {
                "model": {"type": "string", "description": "Before the file, if it is to choose the upstream."},
                "file": {"description": "The audio, of server.max_upload_bytes at most."},
            },
            "file",
        ),
        "TicketRequest": record(
            {
                "ttl_s": whole(1, MOST_TTL_S, "Seconds; 60 if left out."),
                "stream": text("The one stream that it is for.", pattern="^st_[0-9a-f]{32}$"),
            }
        ),
        "SessionRequest": record(session_fields("message"), "message"),
    }


def session_fields(message: str) -> dict[str, Schema]:
    """The fields of a session's request, in a body or in a query."""
    return {
        message: text("What is said.", needed=True, minLength=1, pattern=r"\S"),
        "session_id": text(f"The conversation; {DEFAULT_SESSION} if left out.", pattern=f"^{SESSION_PATTERN}$"),
        "model": text("The configured one (sessions.model), or the only one there is, if left out."),
        "system": text("Instructions, for this message alone."),
        "metadata": flag("Events about the answer, at its start and end."),
    }


def _chat() -> Schema:
    return record(
        {
            "model": _MODEL,
            "messages": items(ref("ChatMessage"), needed=True),
            "stream": _STREAM,
            "stream_options": _USAGE,
            "n": whole(1, about="How many answers."),
            "max_completion_tokens": whole(1),
            "max_tokens": whole(1, about="The older name of max_completion_tokens."),
            **_SAMPLING,
            "tools": items(ref("ChatTool")),
            "tool_choice": either(
                word("auto", "none", "required"),
                record({"function": record({"name": text(needed=True)}, "name")}, "function"),
            ),
            "parallel_tool_calls": flag(),
            "response_format": record(
                {
                    "type": word("text", "json_object", "json_schema"),
                    "json_schema": record(
                        {"name": text(), "schema": anything(), "strict": flag()}, optional=True
                    ),
                },
                optional=True,
            ),
            "reasoning_effort": word(*_EFFORTS),
            "think": word(True, False, "low", "medium", "high", about="As Ollama has it; before reasoning_effort."),
            "logprobs": flag(),
            "top_logprobs": whole(0),
            "options": _OPTIONS,
            "keep_alive": _KEEP_ALIVE,
        },
        "messages",
    )  # fmt: skip


def _chat_message() -> Schema:
    image = record({"url": text(needed=True)}, "url")
    link = either(text(needed=True), image, about="http(s):, or data: with the image itself.")
    part = either(
        record({"type": word("text", needed=True), "text": text(needed=True)}, "type", "text"),
        record({"type": word("refusal", needed=True), "refusal": text(needed=True)}, "type", "refusal"),
        record({"type": word("image_url", needed=True), "image_url": link}, "type", "image_url"),
    )
    call = record(
        {
            "id": text(),
            "function": record({"name": text(needed=True), "arguments": text("JSON.")}, "name"),
        },
        "function",
    )
    return record(
        {
            "role": word("system", "developer", "user", "assistant", "tool", "function", needed=True),
            "content": either(text(), items(part)),
            "name": text(),
            "tool_calls": items(call, "Of an assistant."),
            "tool_call_id": text("Of a tool: which call this is the result of."),
            "reasoning_content": text("Of an assistant."),
        },
        "role",
    )


def _chat_tool() -> Schema:
    function = record(
        {"name": text(needed=True), "description": text(), "parameters": anything("A JSON schema."), "strict": flag()},
        "name",
    )
    return record({"type": word("function"), "function": function}, "function")


def _completion() -> Schema:
    texts = items(text(needed=True), needed=True, minItems=1)
    return record(
        {
            "model": _MODEL,
            "prompt": either(text(needed=True), texts, _TOKENS, items(_TOKENS, needed=True, minItems=1)),
            "suffix": text(),
            "stream": _STREAM,
            "stream_options": _USAGE,
            "n": whole(1, about="How many answers to each prompt."),
            "best_of": whole(1),
            "echo": flag(),
            "logprobs": whole(0),
            "max_tokens": whole(1),
            **_SAMPLING,
            "options": _OPTIONS,
            "keep_alive": _KEEP_ALIVE,
        },
        "prompt",
    )


def _embeddings() -> Schema:
    texts = items(text(needed=True), needed=True)
    return record(
        {
            "model": _MODEL,
            "input": either(text(needed=True), texts, _TOKENS, items(_TOKENS, needed=True, minItems=1)),
            "stream": _NO_STREAM,
            "dimensions": whole(1),
            "encoding_format": word("float", "base64"),
            "truncate": flag("For an Ollama."),
            "options": _OPTIONS,
            "keep_alive": _KEEP_ALIVE,
        },
        "input",
    )


def _responses() -> Schema:
    return record(
        {
            "model": _MODEL,
            "input": either(text(), items(anything("An input item: a message, a function call or its output, …"))),
            "instructions": text(),
            "stream": _STREAM,
            "max_output_tokens": whole(1),
            "temperature": number(0),
            "top_p": number(0, 1),
            "tools": items(anything()),
            "tool_choice": {"type": ["string", "object", "null"]},
            "parallel_tool_calls": flag(),
            "text": anything("The format of the answer."),
            "reasoning": record({"effort": text()}, optional=True),
            "store": flag("Edge itself stores nothing."),
            "metadata": anything(),
            "user": text(),
        }
    )


def _messages(most: tuple[str, ...], stream: Schema) -> Schema:
    said = text(needed=True)
    tool = either(
        record(
            {
                "type": word("custom"),
                "name": said,
                "description": text(),
                "input_schema": record({}, about="A JSON schema."),
                "strict": flag(),
            },
            "name",
            "input_schema",
        ),
        record({"type": said, "name": said}, "type", "name", about="One of Anthropic's own, for its cloud."),
    )
    choice = record(
        {
            "type": word("auto", "any", "tool", "none", needed=True),
            "name": text("Of the tool."),
            "disable_parallel_tool_use": flag(),
        },
        "type",
        optional=True,
    )
    thinking = {"type": word("enabled", "disabled", "adaptive", needed=True), "budget_tokens": whole(1)}
    return record(
        {
            "model": _MODEL,
            "messages": items(ref("Message"), needed=True),
            "system": either(text(), items(record({"text": text(needed=True)}, "text"))),
            "max_tokens": whole(1, needed="max_tokens" in most),
            "stream": stream,
            "temperature": number(0, 1),
            "top_p": number(0, 1),
            "top_k": whole(0),
            "stop_sequences": items(text(needed=True)),
            "tools": items(tool),
            "tool_choice": choice,
            "thinking": record(thinking, "type", optional=True),
            "output_config": record(
                {"effort": word("low", "medium", "high", "xhigh", "max"), "format": anything()}, optional=True
            ),
            "metadata": record({"user_id": text()}, optional=True),
        },
        "messages",
        *most,
    )


def _message() -> Schema:
    content = either(text(needed=True), items(ref("Block"), needed=True))
    return record({"role": word("user", "assistant", "system", needed=True), "content": content}, "role", "content")


def _block() -> Schema:
    said = text(needed=True)
    sources = either(
        record({"type": word("base64", needed=True), "media_type": said, "data": said}, "type", "media_type", "data"),
        record({"type": word("url", needed=True), "url": said}, "type", "url"),
    )
    spoken = record({"type": word("text", needed=True), "text": said}, "type", "text")
    image = record({"type": word("image", needed=True), "source": sources}, "type", "source")
    thinking = record(
        {"type": word("thinking", needed=True), "thinking": said, "signature": text()}, "type", "thinking"
    )
    redacted = record({"type": word("redacted_thinking", needed=True), "data": said}, "type", "data")
    call = record(
        {"type": word("tool_use", needed=True), "id": said, "name": said, "input": anything()}, "type", "id", "name"
    )
    given = either(text(), items(either(spoken, image), needed=True))
    result = record(
        {"type": word("tool_result", needed=True), "tool_use_id": said, "content": given, "is_error": flag()},
        "type",
        "tool_use_id",
    )
    return either(spoken, image, thinking, redacted, call, result)
