"""Composes the call of an attempt: the request as it is (passthrough), or translated for the upstream.

In: a prepared request and the upstream that is asked. Out: one ``Call``. Must not: open it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edge.errors import PromptTooLong
from edge.protocol.canonical import Target
from edge.protocol.dialect import Codec, Dialect
from edge.protocol.dialects import DIALECTS
from edge.protocol.max_tokens import for_cloud
from edge.protocol.ollama.truncation import context_of, takes_truncate
from edge.protocol.ollama_defaults import Defaults, Named, with_defaults
from edge.protocol.request import Prepared, as_sent, unstreamed
from edge.protocol.surface import GENERATING, KEPT, Surface
from edge.protocol.transcode import transcoder, translate
from edge.protocol.transcode_ports import Answering
from edge.settings import Stream as StreamSettings
from edge.upstream.discovery.servers import CLOUDS, Kind
from edge.upstream.health import Member
from edge.upstream.ports import Apart, Call, Upload

_PROMPTS = {Surface.RESPONSES: "input"}  # where it is not called messages
_CUTS_PROMPTS = (Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE)

_VERSION = "anthropic-version"
_REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for every attempt of an exchange.

    Attributes:
        dialect: The client's dialect.
        headers: Headers that go upstream.
        upload: The request's body, if it is passed on as it comes.
        clock: Monotonic, in seconds.
        apart: See ``Call``.
        id_made: Edge made the request's ``x-request-id``, since the client sent none.
        kept: A session or a reader that comes back needs the answer, so the upstream has to stream it.
    """

    dialect: Dialect
    settings: StreamSettings
    headers: Mapping[str, str]
    stream_id: str
    upload: Upload | None
    clock: Callable[[], float]
    apart: Apart | None = None
    id_made: bool = False
    kept: bool = False


def compose(prepared: Prepared, member: Member, terms: Terms) -> Call:
    """The call to ``member`` for this request.

    Raises:
        BadRequest: no surface of the upstream can express the request, or the upstream would cut its prompt.
    """
    to = member.target(prepared.surface, raw=prepared.raw, format_field=prepared.format_field)
    call = _relayed(prepared, member, terms) if to is None else _translated(prepared, member, terms, to)
    if call.surface not in _CUTS_PROMPTS or prepared.loads:
        return call
    context = context_of(call.body)
    if context.refused and not takes_truncate(member.version) and context.too_long:
        named = _PROMPTS.get(prepared.surface, "messages")
        raise PromptTooLong(
            f"{named}: about {context.estimate} tokens, but {member.name} is asked for a context of {context.limit} "
            "(num_ctx) and would cut the prompt silently; send less, or raise options.num_ctx",
            tokens=context.estimate,
            maximum=context.limit,
            param=named,
        )
    return replace(call, context=context)


def _translated(prepared: Prepared, member: Member, terms: Terms, to: Target) -> Call:
    most = terms.settings.max_answer_bytes
    # A client's version says what its own request may hold: a translated one is of the version that Edge writes.
    headers = {name: value for name, value in terms.headers.items() if name != _VERSION}
    translated = next((done for known, done in prepared.crossed if known == to), None) or translate(prepared, to)
    if translated.reshape is not None:
        return Call(
            to.surface, translated.body, None, headers, most,
            takes_body=True, reshape=translated.reshape, dropped=translated.dropped, changed=translated.changed,
            apart=terms.apart,
        )  # fmt: skip
    # The source codec strips nothing: the encoder decides whether the client gets the usage.
    asked = replace(prepared, strip_usage=False)
    source = DIALECTS[to.surface].codec(asked, terms.settings.max_event_bytes, member.repairs)
    answering = Answering(prepared, terms.stream_id.removeprefix("st_"), int(time.time()), translated.echo, terms.clock)
    crossing = transcoder(source, to.surface, answering)
    if not prepared.stream or prepared.surface in KEPT:
        crossing.collect(terms.dialect.collector(prepared))
    return Call(
        to.surface, translated.body, crossing, headers, most,
        takes_body=not prepared.stream, reshape=crossing.reshaped,
        dropped=translated.dropped, changed=translated.changed,
        buffers_calls=prepared.tools and member.buffers_calls,
    )  # fmt: skip


def _relayed(prepared: Prepared, member: Member, terms: Terms) -> Call:
    codec: Codec | None = None
    whole = prepared.surface in GENERATING and not prepared.streamed
    if prepared.streamed:
        if not prepared.stream and member.stops_unstreamed and not terms.kept:
            prepared, whole = unstreamed(prepared), True
        # Whole answers get a codec too, since some proxies turn every answer into a stream.
        codec = terms.dialect.codec(prepared, terms.settings.max_event_bytes, member.repairs)
        if not prepared.stream and terms.upload is None:
            codec.collect(terms.dialect.collector(prepared))
    most = terms.settings.max_answer_bytes
    body, changed = prepared.body, prepared.changed
    if prepared.capped and prepared.surface is Surface.CHAT and member.kind in CLOUDS:
        body = for_cloud(body)
    if prepared.billed_system is not None and member.kind is Kind.ANTHROPIC:
        body, changed = as_sent(prepared), ()
    if prepared.named is not None:
        body = with_defaults(body, prepared.named, _defaults(prepared, prepared.named, member))
    return Call(
        prepared.surface, body, codec, _headers(prepared, terms), most,
        takes_body=not prepared.stream, upload=terms.upload, changed=changed,
        buffers_calls=prepared.tools and member.buffers_calls, whole=whole,
    )  # fmt: skip


def _headers(prepared: Prepared, terms: Terms) -> Mapping[str, str]:
    """Headers for the upstream, without an id of Edge's own: in vLLM it would win over the body's ``request_id``."""
    if not (prepared.names_itself and terms.id_made):
        return terms.headers
    return {name: value for name, value in terms.headers.items() if name != _REQUEST_ID}


def _defaults(prepared: Prepared, named: Named, member: Member) -> Defaults:
    """The settings for an Ollama that this request does not name itself."""
    if prepared.loads or prepared.surface is Surface.OLLAMA_EMBEDDINGS or not member.refuses_cuts(tools=named.tools):
        return member.defaults
    return replace(member.defaults, truncate=False)
