"""Ends that are not the upstream's own: when nobody reads, the error for the reader, what it means to the server.

In: what happened, and the settings. Out: what is to become of a generation; an error; whether a server may
still be at work. Must not: end anything.
"""

from typing import Literal

from edge.errors import EdgeError, Gone, InternalError, ShuttingDown, Stopped, UpstreamBroken
from edge.policy.lifecycle import LifecycleEvent, State
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.settings import Stream as StreamSettings

_BY_EDGE = frozenset({LifecycleEvent.READER_GONE, LifecycleEvent.REJECT, LifecycleEvent.BUG})


def unread(settings: StreamSettings, state: State, *, resumable: bool) -> Literal["cancel", "grace", "drain"]:
    """What becomes of a generation when its last reader has left. ``resumable``: it can be come back to."""
    policy = settings.on_disconnect
    if resumable:
        return "grace" if policy == "cancel" else policy
    # No model is at work on what waits for a slot, so there is nothing to drain.
    return "cancel" if policy == "grace" or state is State.ROUTING else policy


def ended_here(happened: LifecycleEvent, settings: StreamSettings, *, resumable: bool) -> EdgeError | None:
    """The error for the reader of a stream that was ended from this side; None if there is no reader."""
    if happened is LifecycleEvent.SHUTDOWN:
        return ShuttingDown("Edge is shutting down; send the request again")
    if happened is LifecycleEvent.STOP:
        return Stopped("the stream was stopped")
    if not resumable:
        return None  # whoever has gone gets nothing
    waited = f"nobody has read this stream for {settings.grace_s:g} s, so it was stopped"
    return Gone(f"{waited}; send the request again", code="client_gone")


def broken_off(happened: LifecycleEvent, error: EdgeError | None) -> bool:
    """Whether an attempt ended since Edge would not have more of it: what the server sent or was sent made no sense."""
    return happened in _BY_EDGE or isinstance(error, UpstreamBroken)


def failed(bug: BaseException) -> InternalError:
    """The error for a bug of ours, which is its cause."""
    error = InternalError("Edge failed while relaying the answer")
    error.__cause__ = bug
    return error


def error_events(
    own: SurfaceFormat, error: EdgeError, progress: Progress | None = None, *, by_upstream: bool = False
) -> list[bytes]:
    """The events that end a stream which failed; ``by_upstream``: its own error event is out already."""
    events = [] if by_upstream else [own.error_event(error, progress)]
    return [*events, *filter(None, [own.after_error(error, progress)])]
