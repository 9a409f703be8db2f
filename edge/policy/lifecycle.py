"""The lifecycles of a generation, of an attempt and of a subscriber, each one table.

In: what happened (an event). Out: the next state and, where it ends there, the outcome.
Must not: know sockets, clocks or bytes. Flow control is not in here on purpose: whether a reader lags is a matter of
degree, and mixing it in would square the tables.

Two rules. A pair that is not in the table is a bug of ours and raises. ``ENDED`` takes every event and ignores it,
since both ends of a stream may fail in the same moment and only the first to be noticed counts.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """How a generation ended; the closed vocabulary of records, logs and metrics."""

    COMPLETE = "complete"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_STALL = "upstream_stall"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105 - a name, not a password
    TOTAL_TIMEOUT = "total_timeout"
    CLIENT_GONE = "client_gone"
    CLIENT_STALL = "client_stall"
    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    QUEUE_TIMEOUT = "queue_timeout"
    REJECTED = "rejected"
    INTERNAL_ERROR = "internal_error"


class State(StrEnum):
    """Where a generation is."""

    ROUTING = "routing"  # accepted; no upstream is being talked to (at first, and between two attempts)
    ASKING = "asking"  # an attempt is under way; no generated content yet
    STREAMING = "streaming"  # generated content has come
    ENDED = "ended"


class AttemptState(StrEnum):
    """Where an attempt is."""

    CONNECTING = "connecting"  # an upstream connection is being made
    WAITING = "waiting"  # the request is with the upstream; no generated content yet
    STREAMING = "streaming"  # generated content has come
    ENDED = "ended"


class LifecycleEvent(StrEnum):
    """What can happen to a generation or to an attempt."""

    OPEN = "open"  # an attempt begins
    CONNECTED = "connected"
    RETRY = "retry"  # the attempt failed and another upstream may be tried
    CONTENT = "content"
    DONE = "done"  # the upstream finished, and said so
    CUT = "cut"  # it ended, and had not said so
    ERROR = "error"  # it said that it failed
    STALL = "stall"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105 - a name, not a password
    TOTAL_TIMEOUT = "total_timeout"
    READER_GONE = "reader_gone"
    READER_STALLED = "reader_stalled"
    STOP = "stop"
    SHUTDOWN = "shutdown"
    QUEUE_TIMEOUT = "queue_timeout"
    REJECT = "reject"  # the request is of no use, as far as it has been looked at or has come
    BUG = "bug"


_LIVE = (State.ROUTING, State.ASKING, State.STREAMING)

# What can end a generation in any live state, whatever it was doing.
_ANYWHERE = {
    LifecycleEvent.TOTAL_TIMEOUT: Outcome.TOTAL_TIMEOUT,
    LifecycleEvent.READER_GONE: Outcome.CLIENT_GONE,
    LifecycleEvent.READER_STALLED: Outcome.CLIENT_STALL,
    LifecycleEvent.STOP: Outcome.STOPPED,
    LifecycleEvent.SHUTDOWN: Outcome.SHUTDOWN,
    LifecycleEvent.BUG: Outcome.INTERNAL_ERROR,
}
# What can end it while an attempt is under way, before and after the first content.
_ATTEMPTED = {
    LifecycleEvent.DONE: Outcome.COMPLETE,
    LifecycleEvent.CUT: Outcome.UPSTREAM_CUT,
    LifecycleEvent.ERROR: Outcome.UPSTREAM_ERROR,
    LifecycleEvent.REJECT: Outcome.REJECTED,
}

Step = tuple[State, Outcome | None]

GENERATION: dict[tuple[State, LifecycleEvent], Step] = {
    (State.ROUTING, LifecycleEvent.OPEN): (State.ASKING, None),
    (State.ROUTING, LifecycleEvent.REJECT): (State.ENDED, Outcome.REJECTED),
    (State.ROUTING, LifecycleEvent.QUEUE_TIMEOUT): (State.ENDED, Outcome.QUEUE_TIMEOUT),
    (State.ASKING, LifecycleEvent.RETRY): (State.ROUTING, None),
    (State.ASKING, LifecycleEvent.CONTENT): (State.STREAMING, None),
    (State.ASKING, LifecycleEvent.CONNECT_TIMEOUT): (State.ENDED, Outcome.CONNECT_TIMEOUT),
    (State.ASKING, LifecycleEvent.FIRST_TOKEN_TIMEOUT): (State.ENDED, Outcome.FIRST_TOKEN_TIMEOUT),
    (State.STREAMING, LifecycleEvent.STALL): (State.ENDED, Outcome.UPSTREAM_STALL),
    **{
        (state, what): (State.ENDED, outcome)
        for state in (State.ASKING, State.STREAMING)
        for what, outcome in _ATTEMPTED.items()
    },
    **{(state, what): (State.ENDED, outcome) for state in _LIVE for what, outcome in _ANYWHERE.items()},
}

_RUNNING = (AttemptState.CONNECTING, AttemptState.WAITING, AttemptState.STREAMING)

ATTEMPT: dict[tuple[AttemptState, LifecycleEvent], AttemptState] = {
    (AttemptState.CONNECTING, LifecycleEvent.CONNECTED): AttemptState.WAITING,
    (AttemptState.CONNECTING, LifecycleEvent.CONNECT_TIMEOUT): AttemptState.ENDED,
    (AttemptState.WAITING, LifecycleEvent.CONTENT): AttemptState.STREAMING,
    (AttemptState.WAITING, LifecycleEvent.DONE): AttemptState.ENDED,
    (AttemptState.WAITING, LifecycleEvent.REJECT): AttemptState.ENDED,
    (AttemptState.WAITING, LifecycleEvent.FIRST_TOKEN_TIMEOUT): AttemptState.ENDED,
    (AttemptState.STREAMING, LifecycleEvent.DONE): AttemptState.ENDED,
    (AttemptState.STREAMING, LifecycleEvent.REJECT): AttemptState.ENDED,
    (AttemptState.STREAMING, LifecycleEvent.STALL): AttemptState.ENDED,
    **{
        (state, what): AttemptState.ENDED
        for state in _RUNNING
        for what in (LifecycleEvent.CUT, LifecycleEvent.ERROR, *_ANYWHERE)
    },
}


class ReaderState(StrEnum):
    """Where a subscriber is."""

    HELD = "held"  # the status has not gone out
    OPEN = "open"  # committed: bytes go out as they come
    ENDING = "ending"  # the generation ended; what is pending, then the terminal signal, is being flushed
    CLOSED = "closed"


class ReaderEvent(StrEnum):
    """What can happen to a subscriber."""

    COMMIT = "commit"  # status and headers go out
    ANSWER = "answer"  # the whole answer, or an HTTP error, goes out at once
    END = "end"  # the generation ended after the commit
    FLUSHED = "flushed"
    GONE = "gone"
    STALLED = "stalled"


READER: dict[tuple[ReaderState, ReaderEvent], ReaderState] = {
    (ReaderState.HELD, ReaderEvent.COMMIT): ReaderState.OPEN,
    (ReaderState.HELD, ReaderEvent.ANSWER): ReaderState.ENDING,
    (ReaderState.HELD, ReaderEvent.GONE): ReaderState.CLOSED,
    (ReaderState.OPEN, ReaderEvent.END): ReaderState.ENDING,
    (ReaderState.OPEN, ReaderEvent.GONE): ReaderState.CLOSED,
    (ReaderState.OPEN, ReaderEvent.STALLED): ReaderState.CLOSED,
    (ReaderState.ENDING, ReaderEvent.FLUSHED): ReaderState.CLOSED,
    (ReaderState.ENDING, ReaderEvent.GONE): ReaderState.CLOSED,
    (ReaderState.ENDING, ReaderEvent.STALLED): ReaderState.CLOSED,
}


class Illegal(RuntimeError):
    """A transition that the table does not have: a bug of ours."""


def step(state: State, what: LifecycleEvent) -> Step:
    """The next state of a generation, and its outcome if it ends there."""
    if state is State.ENDED:
        return State.ENDED, None
    try:
        return GENERATION[state, what]
    except KeyError:
        raise Illegal(f"a generation that is {state} cannot take {what}") from None


def attempt_step(state: AttemptState, what: LifecycleEvent) -> AttemptState:
    """The next state of an attempt."""
    if state is AttemptState.ENDED:
        return AttemptState.ENDED
    try:
        return ATTEMPT[state, what]
    except KeyError:
        raise Illegal(f"an attempt that is {state} cannot take {what}") from None


def reader_step(state: ReaderState, what: ReaderEvent) -> ReaderState:
    """The next state of a subscriber."""
    if state is ReaderState.CLOSED:
        return ReaderState.CLOSED
    try:
        return READER[state, what]
    except KeyError:
        raise Illegal(f"a subscriber that is {state} cannot take {what}") from None
