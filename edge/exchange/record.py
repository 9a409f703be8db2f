"""From an exchange that has ended on both sides to its StreamRecord.

In: the request, failover, the generation, its reader and the timeline. Out: one record. Must not: change anything.
"""

from typing import Protocol

from edge.errors import InternalError
from edge.exchange.limits import usage_of
from edge.exchange.ports import ExchangeRequest
from edge.policy.lifecycle import Outcome
from edge.policy.routing import printable
from edge.protocol.batch import Measured
from edge.protocol.ollama.truncation import Context
from edge.protocol.request import Prepared
from edge.stream.generation import Generation
from edge.stream.reader import BaseReader
from edge.telemetry.record import StreamRecord
from edge.telemetry.timeline import Phase, Timeline

_NOTHING = Measured()
_STALLS = frozenset({Outcome.UPSTREAM_STALL, Outcome.CLIENT_STALL})


class Attempted(Protocol):
    """What a record needs to know of the attempts; ``failover.Failover``."""

    prepared: Prepared
    count: int
    context: Context | None
    dropped: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def upstream(self) -> str | None:
        """The name of the upstream asked last."""


def summarise(
    asked: ExchangeRequest,
    attempts: Attempted,
    generation: Generation,
    reader: BaseReader,
    timeline: Timeline,
    *,
    request_text: bytes = b"",
) -> StreamRecord:
    """The record of an exchange that has ended on both sides.

    Args:
        asked: Who asked for what.
        attempts: Which upstreams were asked.
        generation: The answer, which has ended.
        reader: Who got it.
        timeline: Where the time went.
        request_text: The beginning of the request's body, for a log that shows it.
    """
    prepared = attempts.prepared
    if generation.outcome is None:
        raise InternalError("an exchange is recorded only when both its sides have ended")
    usage = usage_of(generation, prepared.surface)
    measured = (generation.codec.measured if generation.codec is not None else None) or _NOTHING
    answered = generation.first_token_at is not None or generation.whole is not None
    context = attempts.context if answered else None
    reported = usage.completion if usage is not None else None
    tokens = generation.token_count if reported is None else reported
    ttft = None if generation.first_token_at is None else max(0.0, generation.first_token_at - timeline.started)
    seconds = timeline.seconds
    error = generation.error or reader.error
    return StreamRecord(
        request_id=asked.request_id,
        stream_id=asked.stream_id,
        surface=str(prepared.surface),
        model=prepared.model,
        upstream=attempts.upstream,
        principal=asked.principal.name,
        client=asked.client,
        streaming=prepared.stream,
        status=reader.sent_status,
        outcome=str(generation.outcome),
        reader=reader.ending,
        error=error.code if error is not None else None,
        attempts=attempts.count,
        queued_s=seconds(Phase.QUEUED),
        connecting_s=seconds(Phase.CONNECTING),
        upstream_s=seconds(Phase.UPSTREAM),
        client_blocked_s=seconds(Phase.CLIENT_BLOCKED),
        edge_s=seconds(Phase.EDGE),
        total_s=timeline.total,
        ttft_s=ttft,
        itl_p50_s=generation.gaps.percentile(0.5),
        itl_p99_s=generation.gaps.percentile(0.99),
        itl_max_s=generation.gaps.max,
        tokens_in=usage.prompt if usage is not None else None,
        tokens_out=tokens,
        tokens_cached=usage.cached if usage is not None else None,
        tokens_from="counted" if reported is None else "reported",
        tokens_per_s=tokens_per_s(generation, tokens),
        events=generation.events,
        bytes_out=reader.bytes_out,
        peak_buffer_bytes=reader.peak_pending,
        heartbeats=reader.heartbeats,
        pauses=generation.pauses,
        load_s=measured.load_s,
        prompt_s=measured.prompt_s,
        output_s=measured.output_s,
        output_tokens_per_s=reported / measured.output_s if reported and measured.output_s else None,
        truncated=context is not None and context.cut(usage.prompt if usage is not None else None),
        dropped=", ".join(map(printable, attempts.dropped)) or None,
        unknown_finish=None if generation.codec is None else generation.codec.unknown_finish,
        changed=", ".join(attempts.changed) or None,
        note=generation.codec.note if generation.codec is not None else None,
        stalls=int(generation.outcome in _STALLS),
        http10=reader.http10,
        session=asked.session,
        reconnections=generation.reconnections,
        request_text=_text(request_text, generation.sample_bytes),
        answer_text=_text(bytes(generation.sample), generation.sample_bytes),
    )


def tokens_per_s(generation: Generation, tokens: int | None = None) -> float | None:
    """The rate between the first and the latest token, for the tokens counted or for a better-known number."""
    count, first, last = tokens or generation.token_count, generation.first_token_at, generation.last_token_at
    if first is None or last is None or last <= first or count < 2:
        return None
    return (count - 1) / (last - first)


def _text(data: bytes, most: int) -> str | None:
    return data[:most].decode("utf-8", "replace") if most else None
