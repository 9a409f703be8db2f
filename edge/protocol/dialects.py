"""The one table from a surface to its dialect.

In: nothing. Out: for each surface its ``DialectSpec``. Must not: decide anything; ``transcode`` and the routes do, by
this table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge.protocol.canonical import Ask, Rendering, Target
from edge.protocol.chat import completions as chat_completions
from edge.protocol.chat import decode as chat_decode
from edge.protocol.chat import encode as chat_encode
from edge.protocol.chat import parse as chat_parse
from edge.protocol.chat import render as chat_render
from edge.protocol.chat.codec import ChatDialect
from edge.protocol.chat.transcription import TranscriptDialect
from edge.protocol.dialect import Dialect
from edge.protocol.messages import decode as messages_decode
from edge.protocol.messages import encode as messages_encode
from edge.protocol.messages import parse as messages_parse
from edge.protocol.messages import render as messages_render
from edge.protocol.messages.codec import MessagesDialect
from edge.protocol.ollama import decode as ollama_decode
from edge.protocol.ollama import encode as ollama_encode
from edge.protocol.ollama import parse as ollama_parse
from edge.protocol.ollama import render as ollama_render
from edge.protocol.ollama.codec import OllamaDialect
from edge.protocol.responses import encode as responses_encode
from edge.protocol.responses import parse as responses_parse
from edge.protocol.responses.codec import ResponsesDialect
from edge.protocol.session import encode as session_encode
from edge.protocol.session import parse as session_parse
from edge.protocol.surface import RELAYED, UPLOADS, Surface
from edge.protocol.transcode_ports import Answering, Decoder, Encoder


@dataclass(frozen=True, slots=True)
class DialectSpec:
    """What there is of one dialect. Where it has no ``parse`` or no ``render``, that side is only ever relayed.

    Attributes:
        dialect: Its surface, codec, collector and format.
        parse: A client's request → canonical.
        encoder: Canonical events → the client's.
        render: Canonical → a request for an upstream that speaks it.
        decoder: The events of such an upstream → canonical.
        through: The surfaces that a client may be answered through, the one that loses least first.
    """

    dialect: Dialect
    parse: Callable[[dict[str, object]], Ask] | None = None
    encoder: Callable[[Answering], Encoder] | None = None
    render: Callable[[Ask, Target], Rendering] | None = None
    decoder: Callable[[], Decoder] | None = None
    through: tuple[Surface, ...] = ()


_SPECS = (
    DialectSpec(
        ChatDialect(Surface.CHAT),
        parse=chat_parse.parse,
        encoder=chat_encode.ChatEncoder,
        render=chat_render.render,
        decoder=chat_decode.ChatDecoder,
        through=(Surface.OLLAMA_CHAT, Surface.MESSAGES),
    ),
    DialectSpec(
        ChatDialect(Surface.COMPLETIONS),
        parse=chat_completions.parse,
        encoder=chat_completions.CompletionsEncoder,
        render=chat_completions.render,
        decoder=chat_completions.CompletionsDecoder,
        through=(Surface.OLLAMA_GENERATE,),
    ),
    DialectSpec(
        OllamaDialect(Surface.OLLAMA_CHAT),
        parse=ollama_parse.parse_chat,
        encoder=ollama_encode.OllamaEncoder,
        render=ollama_render.render_chat,
        decoder=ollama_decode.OllamaDecoder,
        through=(Surface.CHAT, Surface.MESSAGES),
    ),
    DialectSpec(
        OllamaDialect(Surface.OLLAMA_GENERATE),
        parse=ollama_parse.parse_generate,
        encoder=ollama_encode.OllamaEncoder,
        render=ollama_render.render_generate,
        decoder=ollama_decode.OllamaDecoder,
        through=(Surface.CHAT, Surface.MESSAGES),
    ),
    DialectSpec(
        MessagesDialect(Surface.MESSAGES),
        parse=messages_parse.parse,
        encoder=messages_encode.MessagesEncoder,
        render=messages_render.render,
        decoder=messages_decode.MessagesDecoder,
        through=(Surface.CHAT, Surface.OLLAMA_CHAT),
    ),
    DialectSpec(MessagesDialect(Surface.COUNT_TOKENS)),
    DialectSpec(
        ResponsesDialect(),
        parse=responses_parse.parse,
        encoder=responses_encode.ResponsesEncoder,
        through=(Surface.CHAT, Surface.OLLAMA_CHAT, Surface.MESSAGES),
    ),
    DialectSpec(
        session_encode.SessionDialect(),
        parse=session_parse.parse,
        encoder=session_encode.SessionEncoder,
        through=(Surface.CHAT, Surface.OLLAMA_CHAT, Surface.MESSAGES),
    ),
    # Vectors are translated by ``embeddings``.
    DialectSpec(ChatDialect(Surface.EMBEDDINGS), through=(Surface.OLLAMA_EMBED,)),
    DialectSpec(OllamaDialect(Surface.OLLAMA_EMBED), through=(Surface.EMBEDDINGS,)),
    DialectSpec(OllamaDialect(Surface.OLLAMA_EMBEDDINGS), through=(Surface.EMBEDDINGS,)),
    *(DialectSpec(ChatDialect(surface)) for surface in sorted(RELAYED - UPLOADS)),
    *(DialectSpec(TranscriptDialect(surface)) for surface in sorted(UPLOADS)),
)

SPECS: dict[Surface, DialectSpec] = {spec.dialect.surface: spec for spec in _SPECS}
DIALECTS: dict[Surface, Dialect] = {surface: spec.dialect for surface, spec in SPECS.items()}
