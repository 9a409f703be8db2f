"""The StreamRecord: everything that is reported about one exchange, made once, when it has ended.

In: the exchange, or a reader that came back, at its end. Out: one frozen value, from which the log line and all metrics
are made.
Must not: hold text of prompts or answers beyond what ``log.content_bytes`` asked for, or any key.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """One exchange, from accepted to ended. Times are seconds; ``None`` means it did not come to that.

    ``queued_s + connecting_s + upstream_s + client_blocked_s + edge_s == total_s``: each moment belongs to one of them.
    """

    request_id: str
    stream_id: str
    surface: str
    model: str | None
    upstream: str | None
    principal: str
    client: str | None  # the address of who called, or of the proxy that is believed no further
    streaming: bool  # the client asked for a stream
    status: int  # HTTP status that went out; 499 when the reader left before there was one
    outcome: str  # policy.lifecycle.Outcome
    reader: str  # how the reader's side ended: finished, gone, stalled
    error: str | None  # error code that the client got
    attempts: int
    queued_s: float
    connecting_s: float
    upstream_s: float
    client_blocked_s: float
    edge_s: float
    total_s: float
    ttft_s: float | None  # accepted to the first generated token
    itl_p50_s: float | None
    itl_p99_s: float | None
    itl_max_s: float | None
    tokens_in: int | None
    tokens_out: int
    tokens_cached: int | None
    tokens_from: str  # reported (by the upstream's usage) or counted (events with generated content)
    tokens_per_s: float | None
    events: int
    bytes_out: int
    peak_buffer_bytes: int
    heartbeats: int
    pauses: int  # times that the upstream was not read because all readers lagged
    load_s: float | None  # what the upstream said of its own time: loading the model,
    prompt_s: float | None  # reading the prompt,
    output_s: float | None  # and generating,
    output_tokens_per_s: float | None  # which makes so many tokens a second
    truncated: bool  # the upstream has cut the prompt to its context, or seems to have
    dropped: str | None  # fields of the request that the upstream had no place for
    unknown_finish: str | None  # a finish reason of the upstream's that Edge does not know
    changed: str | None  # what was changed of the prompt, as in x-edge-changed
    stalls: int  # silences over the limit, on either side
    http10: bool
    session: str | None  # the session that it is part of
    reconnections: int  # readers that came back to it while it ran
    request_text: str | None = None  # only if log.content_bytes asks for it
    answer_text: str | None = None
    note: str | None = None  # what is odd about the end: repetition (Ollama stopped a model that repeats itself)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRecord:
    """A reader that came back to a stream, made once, when it has gone.

    ``reconnections``: how many of the stream's readers had come back by then, it among them.
    """

    request_id: str
    stream_id: str
    surface: str
    model: str | None
    session: str | None
    principal: str
    client: str | None
    after: int
    source: str  # live: generated here; store: read from there
    status: int
    reader: str  # finished, gone, stalled
    reconnections: int
    bytes_out: int
    heartbeats: int
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecord:
    """A request that changes an upstream's models (pull, push, blobs and the like), made once, when it has ended."""

    request_id: str
    stream_id: str
    principal: str
    client: str | None
    method: str
    path: str
    operation: str  # pull, push, create, copy, delete, blobs
    model: str | None
    upstream: str
    status: int  # HTTP status that went out; 499 when the client left before there was one
    outcome: str  # policy.lifecycle.Outcome
    error: str | None  # error code that the client got
    bytes_in: int  # of the request's body
    bytes_out: int  # of the answer's
    total_s: float
