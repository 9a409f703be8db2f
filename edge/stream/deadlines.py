"""The clocks of a generation: which of them has run out, and what a reader is told of that.

In: state and times. Out: what happened, and the error. Must not: end anything.
"""

from edge.errors import UpstreamTimeout
from edge.policy.lifecycle import Happened, State, step
from edge.settings import Stream as StreamSettings

_TOLD = {
    Happened.CONNECT_TIMEOUT: "the upstream did not accept a connection within {} s",
    Happened.FIRST_TOKEN_TIMEOUT: "the upstream produced no token within {} s",
    Happened.STALL: "the upstream fell silent for {} s in the middle of the answer",
    Happened.TOTAL_TIMEOUT: "the answer took longer than {} s",
}


def overdue(state: State, settings: StreamSettings, waited: float, *, paused: bool) -> tuple[Happened, float] | None:
    """What has happened to a generation that has been in its state, or without a token, for ``waited`` seconds.

    Returns:
        That, and the limit in seconds; None if there is time left.
    """
    if state is State.CONNECTING and waited > settings.connect_s:
        return Happened.CONNECT_TIMEOUT, settings.connect_s
    if state is State.WAITING and waited > settings.first_token_s:
        return Happened.FIRST_TOKEN_TIMEOUT, settings.first_token_s
    if state is State.STREAMING and waited > settings.inter_token_s and not paused:
        return Happened.STALL, settings.inter_token_s
    return None


def timed_out(state: State, happened: Happened, limit_s: float) -> UpstreamTimeout:
    """What a reader is told."""
    _, outcome = step(state, happened)
    return UpstreamTimeout(_TOLD[happened].format(f"{limit_s:g}"), code=outcome)
