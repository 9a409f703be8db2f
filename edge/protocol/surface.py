"""The API shapes a client may speak: one member of ``Surface`` for each, with all facts that tables are made of.

In: nothing. Out: surfaces, and sets of them. Must not: know a dialect, or hold a path that is built from what a client
sent.
"""

from enum import StrEnum
from typing import NamedTuple, Self


class Facts(NamedTuple):
    """What is so on one surface.

    Attributes:
        operation: What metrics call it, after OpenTelemetry's ``gen_ai.operation.name`` where there is such a name.
        path: The one exact path, for clients and on upstreams; empty for what no upstream speaks.
        generates: Its answers are generated, hence streamed from the upstream even for a client that wants one body.
        embeds: Its answers are vectors.
        relayed: An upstream is asked only if its settings allow that (``relay``); Edge knows no shape of it.
        uploads: Requests are multipart forms with a file in them, answers may be JSON, text or a stream.
        runs_model: A model works on it: it takes a slot, and tokens off a limit.
        ollama: It is of Ollama's own API.
        streams_by_default: A request that says nothing of it is for a stream.
        kept: Streamed answers are also collected, since they are kept.
        choices: An answer may have several.
        continues: It takes a prompt that is to be continued as it stands.
    """

    operation: str
    path: str = ""
    generates: bool = False
    embeds: bool = False
    relayed: bool = False
    uploads: bool = False
    runs_model: bool = True
    ollama: bool = False
    streams_by_default: bool = False
    kept: bool = False
    choices: bool = False
    continues: bool = False


_UNKNOWN = Facts("other")


class Surface(StrEnum):
    """A surface, by the name used in configuration, logs and metrics. Relayed routes are named by their path."""

    facts: Facts

    def __new__(cls, name: str, facts: Facts = _UNKNOWN) -> Self:
        """A member, of its name and its facts; ``Surface("chat")`` finds one by the name alone."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.facts = facts if not facts.relayed else facts._replace(path=name)
        return member

    CHAT = "chat", Facts("chat", "/v1/chat/completions", generates=True, choices=True)
    COMPLETIONS = (
        "completions",
        Facts("text_completion", "/v1/completions", generates=True, choices=True, continues=True),
    )
    EMBEDDINGS = "embeddings", Facts("embeddings", "/v1/embeddings", embeds=True)
    RESPONSES = "responses", Facts("chat", "/v1/responses", generates=True)
    MESSAGES = "messages", Facts("chat", "/v1/messages", generates=True)
    COUNT_TOKENS = "count_tokens", Facts("count_tokens", "/v1/messages/count_tokens", runs_model=False)
    OLLAMA_CHAT = "ollama_chat", Facts("chat", "/api/chat", generates=True, ollama=True, streams_by_default=True)
    OLLAMA_GENERATE = (
        "ollama_generate",
        Facts("text_completion", "/api/generate", generates=True, ollama=True, streams_by_default=True, continues=True),
    )
    OLLAMA_EMBED = "ollama_embed", Facts("embeddings", "/api/embed", embeds=True, ollama=True)
    # The older one.
    OLLAMA_EMBEDDINGS = "ollama_embeddings", Facts("embeddings", "/api/embeddings", embeds=True, ollama=True)
    # Edge's own session API, which clients alone speak.
    SESSION = "session", Facts("chat", generates=True, streams_by_default=True, kept=True)
    RERANK = "/v1/rerank", Facts("rerank", relayed=True)
    RERANK_BARE = "/rerank", Facts("rerank", relayed=True)
    SCORE = "/v1/score", Facts("score", relayed=True)
    RERANK_V2 = "/v2/rerank", Facts("rerank", relayed=True)
    POOLING = "/pooling", Facts("embeddings", relayed=True)
    CLASSIFY = "/classify", Facts("classify", relayed=True)
    INFILL = "/infill", Facts("text_completion", relayed=True)
    SPEECH = "/v1/audio/speech", Facts("speech", relayed=True)
    DECISIONS = "/v1/decisions", Facts("decide", relayed=True)
    SYSTEMONE = "/v1/systemone", Facts("decide", relayed=True)
    INPUT_TOKENS = "/v1/responses/input_tokens", Facts("count_tokens", relayed=True, runs_model=False)
    CONTROL = "/v1/chat/completions/control", Facts("control", relayed=True, runs_model=False)
    TOKENIZE = "/tokenize", Facts("tokenize", relayed=True, runs_model=False)
    DETOKENIZE = "/detokenize", Facts("detokenize", relayed=True, runs_model=False)
    TRANSCRIPTIONS = "/v1/audio/transcriptions", Facts("transcription", relayed=True, uploads=True)
    TRANSLATIONS = "/v1/audio/translations", Facts("transcription", relayed=True, uploads=True)


UPLOADS = frozenset(surface for surface in Surface if surface.facts.uploads)
RELAYED = frozenset(surface for surface in Surface if surface.facts.relayed)
WITHOUT_MODEL = frozenset(surface for surface in Surface if not surface.facts.runs_model)
EMBEDS = frozenset(surface for surface in Surface if surface.facts.embeds)
GENERATING = frozenset(surface for surface in Surface if surface.facts.generates)
OLLAMA = frozenset(surface for surface in Surface if surface.facts.ollama)
KEPT = frozenset(surface for surface in Surface if surface.facts.kept)
STREAMS_BY_DEFAULT = frozenset(surface for surface in Surface if surface.facts.streams_by_default)

UPSTREAM_PATHS: dict[Surface, str] = {surface: surface.facts.path for surface in Surface if surface.facts.path}

# What clients alone speak: Edge's own session API, under its two names.
SESSION_PATHS = ("/v1/chat/stream", "/stream")
