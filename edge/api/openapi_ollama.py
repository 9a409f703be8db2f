"""Requests and answers of Ollama's own API.

In: nothing. Out: JSON schemas by name. Must not: list what is passed on unread, or promise what only an Ollama reports.
"""

from edge.api.openapi_schema import Schema, anything, either, flag, items, number, record, ref, text, whole, word

_MODEL = text("A model of /api/tags, with or without :latest.")
_KEEP_ALIVE: Schema = {"type": ["string", "number", "null"], "description": "As 5m, or in seconds; 0 unloads."}
_IMAGES = either(text(contentEncoding="base64"), items(text(needed=True, contentEncoding="base64")))
_THINK = word(True, False, "low", "medium", "high")
_STREAM = flag("Lines of JSON, which is what they are unless this is false.")
_FACT = text(needed=True)


def requests() -> dict[str, Schema]:
    """All request bodies."""
    return {
        "OllamaChatRequest": record(
            {
                "messages": items(ref("OllamaMessage"), "None loads the model."),
                "template": text("For an Ollama."),
                "tools": items(ref("ChatTool")),
                **_shared(),
            }
        ),
        "OllamaMessage": _message(),
        "OllamaGenerateRequest": record(
            {
                "prompt": text("None loads the model."),
                "system": text(),
                "suffix": text(),
                "raw": flag("The prompt is continued as it stands."),
                "images": _IMAGES,
                "template": text("For an Ollama."),
                "context": items(whole(needed=True), "For the Ollama that made it."),
                **_shared(),
            }
        ),
        "OllamaEmbedRequest": record(
            {
                "model": _MODEL,
                "input": either(text(needed=True), items(text(needed=True), needed=True)),
                "dimensions": whole(1),
                "truncate": flag(),
                "options": anything(),
                "keep_alive": _KEEP_ALIVE,
            },
            "input",
        ),
        "OllamaEmbeddingsRequest": record(
            {"model": _MODEL, "prompt": _FACT, "options": anything(), "keep_alive": _KEEP_ALIVE}, "prompt"
        ),
        "OllamaShowRequest": either(
            record({"model": text(needed=True, minLength=1)}, "model"),
            record({"name": _FACT}, "name", about="As older clients have it."),
        ),
        "OllamaManagementRequest": record({}, about="As Ollama has it; passed on."),
    }


def answers() -> dict[str, Schema]:
    """All JSON answers."""
    done = {"model": _FACT, "created_at": _FACT, "done": {"type": "boolean"}, "done_reason": text()}
    figures = {
        name: whole(0)
        for name in (
            "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
            "eval_duration",
        )
    }  # fmt: skip
    vector = items({"type": "number"}, needed=True)
    model = record({"name": _FACT, "model": _FACT, "size": whole(0), "digest": text(), "details": anything()}, "name")
    return {
        "OllamaChat": record({**done, "message": ref("OllamaMessage"), **figures}, "message", "done"),
        "OllamaGenerate": record({**done, "response": _FACT, "thinking": text(), **figures}, "response", "done"),
        "OllamaEmbed": record({"model": _FACT, "embeddings": items(vector, needed=True)}, "embeddings"),
        "OllamaEmbeddings": record({"embedding": vector}, "embedding"),
        "OllamaModels": record({"models": items(model, needed=True)}, "models"),
        "OllamaShow": record(
            {
                "modelfile": text(),
                "details": anything(),
                "model_info": anything(),
                "capabilities": items(text(needed=True)),
            }
        ),
        "OllamaVersion": record({"version": _FACT}, "version"),
        "OllamaAnswer": record({}, about="As Ollama has it; passed on."),
    }


def _shared() -> dict[str, Schema]:
    options = {
        "num_ctx": whole(),
        "num_predict": whole(about="A limit in tokens; negative is none."),
        "temperature": number(0),
        "top_p": number(0, 1),
        "top_k": whole(),
        "min_p": number(0, 1),
        "seed": whole(),
        "stop": either(text(), items(text(needed=True))),
        "presence_penalty": number(),
        "frequency_penalty": number(),
    }
    return {
        "model": _MODEL,
        "stream": _STREAM,
        "format": either(word("json", ""), record({}, about="A JSON schema.")),
        "options": record(options, optional=True),
        "think": _THINK,
        "keep_alive": _KEEP_ALIVE,
        "logprobs": flag("Of each token."),
        "top_logprobs": whole(0, 20, "How many alternatives each token has."),
    }


def _message() -> Schema:
    call = record(
        {"id": text(), "function": record({"name": _FACT, "arguments": anything()}, "name")},
        "function",
    )
    return record(
        {
            "role": word("system", "user", "assistant", "tool", needed=True),
            "content": text(),
            "thinking": text("Of an assistant."),
            "images": _IMAGES,
            "tool_calls": items(call, "Of an assistant."),
            "tool_name": text("Of a tool."),
        },
        "role",
    )
