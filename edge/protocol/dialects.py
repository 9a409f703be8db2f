"""The one table from a surface to its dialect."""

from edge.protocol.chat.codec import ChatDialect
from edge.protocol.chat.transcription import TranscriptDialect
from edge.protocol.dialect import Dialect
from edge.protocol.messages.codec import MessagesDialect
from edge.protocol.ollama.codec import OllamaDialect
from edge.protocol.responses.codec import ResponsesDialect
from edge.protocol.session.encode import SessionDialect
from edge.protocol.surface import RELAYED, UPLOADS, Surface

DIALECTS: dict[Surface, Dialect] = {
    Surface.CHAT: ChatDialect(Surface.CHAT),
    Surface.COMPLETIONS: ChatDialect(Surface.COMPLETIONS),
    Surface.EMBEDDINGS: ChatDialect(Surface.EMBEDDINGS),
    Surface.RESPONSES: ResponsesDialect(),
    Surface.MESSAGES: MessagesDialect(Surface.MESSAGES),
    Surface.COUNT_TOKENS: MessagesDialect(Surface.COUNT_TOKENS),
    Surface.OLLAMA_CHAT: OllamaDialect(Surface.OLLAMA_CHAT),
    Surface.OLLAMA_GENERATE: OllamaDialect(Surface.OLLAMA_GENERATE),
    Surface.OLLAMA_EMBED: OllamaDialect(Surface.OLLAMA_EMBED),
    Surface.SESSION: SessionDialect(),
    Surface.OLLAMA_EMBEDDINGS: OllamaDialect(Surface.OLLAMA_EMBEDDINGS),
    **{surface: ChatDialect(surface) for surface in sorted(RELAYED - UPLOADS)},
    **{surface: TranscriptDialect(surface) for surface in sorted(UPLOADS)},
}
