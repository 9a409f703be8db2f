"""A budget of bytes that many requests share; who takes must give back, exactly once.

In: sizes, and whose they are. Out: yes or no. Must not: wait; a request that does not fit is to be sent again.

Nobody can use up the budget alone: one holder has at most ``each`` bytes of it, whatever number of requests they send.
"""


class ByteBudget:
    """At most ``limit`` bytes at once, at most ``each`` of one holder.

    Args:
        limit: In bytes.
        each: In bytes; None = no bound but ``limit``.
    """

    def __init__(self, limit: int, each: int | None = None) -> None:
        self.limit = limit
        self.each = each
        self.used = 0
        self.peak = 0
        self.held: dict[str, int] = {}  # bytes by holder, of those who have any

    def __repr__(self) -> str:
        return f"<ByteBudget {self.used}/{self.limit}>"

    def share(self, holder: str = "") -> "Share":
        """An empty share, to be filled and given back.

        Args:
            holder: Whose bytes they will be; those of nobody in particular have no bound but ``limit``.
        """
        return Share(self, holder)


class Share:
    """What one request has taken of a budget."""

    __slots__ = ("_budget", "_holder", "_taken")

    def __init__(self, budget: ByteBudget, holder: str) -> None:
        self._budget = budget
        self._holder = holder
        self._taken = 0

    def reserve(self, size: int, *, made_here: bool = False) -> bool:
        """Take ``size`` bytes more; False, and nothing taken, if they do not fit.

        Args:
            size: In bytes.
            made_here: Edge made these bytes of others that the holder has taken already: only ``limit`` bounds them.
        """
        budget, holder = self._budget, self._holder
        if budget.used + size > budget.limit:
            return False
        if holder:
            held = budget.held.get(holder, 0) + size
            if budget.each is not None and held > budget.each and not made_here:
                return False
            if held:
                budget.held[holder] = held
        budget.used += size
        budget.peak = max(budget.peak, budget.used)
        self._taken += size
        return True

    def give_back(self) -> None:
        """Give back all that was taken; idempotent."""
        budget, taken = self._budget, self._taken
        if not taken:
            return
        self._taken = 0
        budget.used -= taken
        if self._holder:
            left = budget.held[self._holder] - taken
            if left:
                budget.held[self._holder] = left
            else:
                del budget.held[self._holder]
