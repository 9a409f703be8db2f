"""Deadlines: which clock of an attempt or a generation has run out, and the error for the reader.

In: a state and times. Out: the lifecycle event and the error. Must not: end anything.

Three rules hold for an answer. Before the first content, nothing but content stops ``first_token_s``. After it,
whatever the upstream sends (content, arguments of a tool call, comments, empty deltas) starts ``inter_token_s`` anew.
And however much life the upstream shows: an answer that gets no content for ``first_token_s`` has stalled.
"""

from typing import NamedTuple

from edge.errors import UpstreamTimeout
from edge.policy.lifecycle import AttemptState, LifecycleEvent, Outcome
from edge.settings import Stream as StreamSettings

_CONNECT = "the upstream did not accept a connection within {} s"
_FIRST_TOKEN = "the upstream produced no token within {} s"  # noqa: S105 - a text, not a password
_WHOLE = "the upstream did not finish the answer within {} s (stream.whole_s)"
_SILENT = "the upstream fell silent for {} s in the middle of the answer"
_BARREN = "the upstream added nothing to the answer for {} s"
_TOTAL = "the answer took longer than {} s"


_OUTCOMES = {
    LifecycleEvent.CONNECT_TIMEOUT: Outcome.CONNECT_TIMEOUT,
    LifecycleEvent.FIRST_TOKEN_TIMEOUT: Outcome.FIRST_TOKEN_TIMEOUT,
    LifecycleEvent.STALL: Outcome.UPSTREAM_STALL,
    LifecycleEvent.TOTAL_TIMEOUT: Outcome.TOTAL_TIMEOUT,
}


class Late(NamedTuple):
    """A clock that has run out: its lifecycle event, and the message."""

    happened: LifecycleEvent
    message: str

    def error(self) -> UpstreamTimeout:
        """The error for the reader."""
        return UpstreamTimeout(self.message, code=_OUTCOMES[self.happened])


class AnswerMode(NamedTuple):
    """How the upstream delivers the answer of an attempt.

    Attributes:
        buffers_calls: The upstream may be silent while it writes a tool call.
        whole: The answer comes in one body when it is finished: ``whole_s`` holds in place of the three rules.
    """

    buffers_calls: bool = False
    whole: bool = False


class Waited(NamedTuple):
    """How long an attempt has waited, in seconds.

    Attributes:
        content: Since the latest content; before the first one, since the present state began.
        life: Since the upstream last sent anything.
    """

    content: float
    life: float


_STREAMED = AnswerMode()


def overdue(
    state: AttemptState, settings: StreamSettings, waited: Waited, *, paused: bool = False, mode: AnswerMode = _STREAMED
) -> Late | None:
    """Which clock of an attempt has run out; None if there is time left.

    Args:
        state: The state of the attempt.
        settings: The limits.
        waited: How long it has waited.
        paused: Edge does not read the upstream, since the readers lag.
        mode: How the upstream delivers the answer.
    """
    if state is AttemptState.CONNECTING and waited.content > settings.connect_s:
        return _late(LifecycleEvent.CONNECT_TIMEOUT, _CONNECT, settings.connect_s)
    message, limit_s = (_WHOLE, settings.whole_s) if mode.whole else (_FIRST_TOKEN, settings.first_token_s)
    if state is AttemptState.WAITING and 0 < limit_s < waited.content:
        return _late(LifecycleEvent.FIRST_TOKEN_TIMEOUT, message, limit_s)
    if state is not AttemptState.STREAMING or paused:
        return None
    if waited.life > settings.inter_token_s and not mode.buffers_calls:
        return _late(LifecycleEvent.STALL, _SILENT, settings.inter_token_s)
    if waited.content > settings.first_token_s:
        return _late(LifecycleEvent.STALL, _BARREN, settings.first_token_s)
    return None


def overlong(settings: StreamSettings) -> Late:
    """The generation has taken longer than ``total_s``."""
    return _late(LifecycleEvent.TOTAL_TIMEOUT, _TOTAL, settings.total_s)


def _late(happened: LifecycleEvent, message: str, limit_s: float) -> Late:
    return Late(happened, message.format(f"{limit_s:g}"))
