"""The API shapes a client may speak, and the one exact path each has on an upstream."""

from enum import StrEnum


class Surface(StrEnum):
    """A surface, by the name used in configuration, logs and metrics."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_EMBED = "ollama_embed"
    OLLAMA_EMBEDDINGS = "ollama_embeddings"  # the older one
    SESSION = "session"
    # Relayed routes: no shapes that Edge knows, hence named by what they are, a path.
    RERANK = "/v1/rerank"
    RERANK_BARE = "/rerank"
    SCORE = "/v1/score"
    RERANK_V2 = "/v2/rerank"
    POOLING = "/pooling"
    CLASSIFY = "/classify"
    INFILL = "/infill"
    SPEECH = "/v1/audio/speech"
    DECISIONS = "/v1/decisions"
    SYSTEMONE = "/v1/systemone"
    INPUT_TOKENS = "/v1/responses/input_tokens"
    CONTROL = "/v1/chat/completions/control"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"
    TRANSLATIONS = "/v1/audio/translations"


# Whose requests are multipart forms with a file in them, and whose answers may be JSON, text or a stream.
UPLOADS = frozenset({Surface.TRANSCRIPTIONS, Surface.TRANSLATIONS})

# What an upstream is asked only if its settings allow that (``relay``).
RELAYED = frozenset(surface for surface in Surface if surface.startswith("/"))

# For which no model runs: they take no slot, and no tokens off a limit.
WITHOUT_MODEL = frozenset(
    {Surface.COUNT_TOKENS, Surface.TOKENIZE, Surface.DETOKENIZE, Surface.INPUT_TOKENS, Surface.CONTROL}
)

# Exact upstream paths: a route names its path here, nothing is ever built from what a client sent.
UPSTREAM_PATHS: dict[Surface, str] = {
    Surface.CHAT: "/v1/chat/completions",
    Surface.COMPLETIONS: "/v1/completions",
    Surface.EMBEDDINGS: "/v1/embeddings",
    Surface.RESPONSES: "/v1/responses",
    Surface.MESSAGES: "/v1/messages",
    Surface.COUNT_TOKENS: "/v1/messages/count_tokens",
    Surface.OLLAMA_CHAT: "/api/chat",
    Surface.OLLAMA_GENERATE: "/api/generate",
    Surface.OLLAMA_EMBED: "/api/embed",
    Surface.OLLAMA_EMBEDDINGS: "/api/embeddings",
    **{surface: surface.value for surface in sorted(RELAYED)},
}

# What clients alone speak: Edge's own session API, under its two names.
SESSION_PATHS = ("/v1/chat/stream", "/stream")

# Whose answers are vectors.
EMBEDS = frozenset({Surface.EMBEDDINGS, Surface.OLLAMA_EMBED, Surface.OLLAMA_EMBEDDINGS})

# Surfaces whose answers are generated, hence streamed from the upstream even for a client that wants one JSON body.
GENERATING = frozenset(Surface) - EMBEDS - RELAYED - {Surface.COUNT_TOKENS}

# Ollama's own API.
OLLAMA = frozenset({Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE, Surface.OLLAMA_EMBED, Surface.OLLAMA_EMBEDDINGS})

# Surfaces whose streamed answers are also collected, since they are kept.
KEPT = frozenset({Surface.SESSION})

# Where a request that says nothing of it is for a stream.
STREAMS_BY_DEFAULT = frozenset({Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE, Surface.SESSION})
