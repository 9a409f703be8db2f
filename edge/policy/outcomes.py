"""Whether a server fails whatever it is asked, though it answers when it is looked at: its engine may have died.

In: how attempts ended, and times. Out: why it is held to be failing. Must not: ask, log, or judge a single failure:
one request may be at fault itself.

Five failures in a row, with nothing answered in between, are the sign; or one that says that the engine died. After a
while (5 s, each time twice as long, 60 s at most) the server is tried again, and then one more failure is enough.
"""

IN_A_ROW = 5
_DIED = ("EngineCore encountered an issue", "EngineDeadError")  # vLLM's words
FIRST_TRIAL_S = 5.0
LONGEST_S = 60.0


class Outcomes:
    """See the module.

    Attributes:
        failing: Why it is held to be so, as a phrase that follows the server's name; None if it is not.
    """

    __slots__ = ("_again_at", "_pause_s", "_row", "failing")

    def __init__(self) -> None:
        self.failing: str | None = None
        self._row = 0  # failures since it last answered
        self._pause_s = FIRST_TRIAL_S
        self._again_at = 0.0

    def __repr__(self) -> str:
        return f"<Outcomes {self._row} failures in a row, {self.failing or 'not failing'}>"

    def failed(self, message: str, now: float) -> None:
        """It could not answer, by its own fault."""
        self._row = IN_A_ROW if any(words in message for words in _DIED) else self._row + 1
        if self._row >= IN_A_ROW and self.failing is None:
            self.failing = f"fails whatever it is asked, though it answers looks; its last error: {message}"
            self._again_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_S)

    def forget(self) -> None:
        """It has answered, or it is another process than before."""
        self._row, self._pause_s, self._again_at = 0, FIRST_TRIAL_S, 0.0
        self.failing = None

    def try_again(self, now: float) -> None:
        """Let it be asked like others once its time is over."""
        if self.failing is not None and now >= self._again_at:
            self.failing = None
            self._row = IN_A_ROW - 1
