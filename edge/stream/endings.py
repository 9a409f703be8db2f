"""Rules for ends that do not come from the upstream: no reader is left, somebody stops a stream, Edge has a bug.

In: what happened, and the settings. Out: what becomes of a generation; the error for its readers; whether a server may
still be at work. Must not: end anything.
"""

from typing import Literal

from edge.errors import EdgeError, Gone, InternalError, ShuttingDown, Stopped, UpstreamBroken
from edge.policy.lifecycle import LifecycleEvent, State
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.settings import Stream as StreamSettings

_BY_EDGE = frozenset({LifecycleEvent.READER_GONE, LifecycleEvent.REJECT, LifecycleEvent.BUG})


def unread(settings: StreamSettings, state: State, *, resumable: bool) -> Literal["cancel", "grace", "drain"]:
    """What becomes of a generation when its last reader has left. ``resumable``: readers may come back to it."""
    policy = settings.on_disconnect
    if resumable:
        return "grace" if policy == "cancel" else policy
    # No model is at work on what waits for a slot, so there is nothing to drain.
    return "cancel" if policy == "grace" or state is State.ROUTING else policy


def ended_here(happened: LifecycleEvent, settings: StreamSettings, *, resumable: bool) -> EdgeError | None:
    """The error for the readers of a stream that Edge itself ends; None if no reader can be left."""
    if happened is LifecycleEvent.SHUTDOWN:
        return ShuttingDown("Edge is shutting down; send the request again")
    if happened is LifecycleEvent.STOP:
        return Stopped("the stream was stopped")
    if not resumable:
        return None  # the only readers have gone
    waited = f"nobody has read this stream for {settings.grace_s:g} s, so it was stopped"
    return Gone(f"{waited}; send the request again", code="client_gone")


def broken_off(happened: LifecycleEvent, error: EdgeError | None) -> bool:
    """Whether Edge broke the attempt off: by itself, or because it could not use what the server sent."""
    return happened in _BY_EDGE or isinstance(error, UpstreamBroken)


def failed(bug: BaseException) -> InternalError:
    """The error for readers when Edge has a bug, with the bug as its cause."""
    error = InternalError("Edge failed while relaying the answer")
    error.__cause__ = bug
    return error


def error_events(
    own: SurfaceFormat, error: EdgeError, progress: Progress | None = None, *, by_upstream: bool = False
) -> list[bytes]:
    """The events that end a failed stream. ``by_upstream``: the upstream's own error event has gone out already."""
    events = [] if by_upstream else [own.error_event(error, progress)]
    return [*events, *filter(None, [own.after_error(error, progress)])]
