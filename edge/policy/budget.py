"""A budget of bytes that many requests share; who takes must give back, exactly once.

In: sizes. Out: yes or no. Must not: wait; a request that does not fit is told to come again.
"""


class Budget:
    """At most ``limit`` bytes at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0

    def __repr__(self) -> str:
        return f"<Budget {self.used}/{self.limit}>"

    def share(self) -> "Share":
        """An empty share, to be filled and given back."""
        return Share(self)


class Share:
    """What one request has taken of a budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> bool:
        """Take ``size`` bytes more; False, and nothing taken, if they do not fit."""
        budget = self._budget
        if budget.used + size > budget.limit:
            return False
        budget.used += size
        budget.peak = max(budget.peak, budget.used)
        self._taken += size
        return True

    def give_back(self) -> None:
        """Give back all that was taken; idempotent."""
        self._budget.used -= self._taken
        self._taken = 0
