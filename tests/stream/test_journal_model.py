"""The journal against a list of all events that ever were: whatever is appended, trimmed and bounded."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.streams import unhurried

from edge.protocol.event_ids import LineCount
from edge.stream.journal import Expired, Journal

events = st.lists(st.binary(max_size=6).map(lambda raw: raw.replace(b"\n", b"") + b"\n"), min_size=1, max_size=5)


class Model(RuleBasedStateMachine):
    """A journal of lines, and all lines that were ever put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.every: list[bytes] = []
        self.batches: list[int] = []  # how many events each had
        self.trimmed = 0

    @initialize(keep=st.sampled_from([0, 8, 10**6]))
    def begin(self, keep: int) -> None:
        self.journal = Journal(keep)

    @rule(batch=events, times=st.sampled_from([1, 1, 1, 300]))
    def append(self, batch: list[bytes], times: int) -> None:
        """Many at once: the lists are tidied up only once in a while."""
        for _ in range(times):
            self.journal.append(b"".join(batch), len(batch))
            self.every += batch
            self.batches.append(len(batch))

    @rule(share=st.floats(0, 1))
    def trim(self, share: float) -> None:
        before = self.journal.before
        position = int(self.size * share)
        self.journal.trim(position)
        assert self.journal.start <= max(position, self.at(before))

    @rule(most=st.integers(0, 60))
    def bound(self, most: int) -> None:
        before, latest = self.journal.before, self.batches[-1:] or [0]
        held = self.journal.end - self.journal.start
        self.journal.bound(most)
        left = self.journal.end - self.journal.start
        if held <= most:
            assert left == held
        else:
            only_latest = len(self.every) - self.journal.before <= latest[0]
            assert left <= most or only_latest
        assert self.journal.before >= before
        assert not self.every or not held or left, "the latest batch stays"

    @property
    def size(self) -> int:
        return len(b"".join(self.every))

    def at(self, sequence: int) -> int:
        """Where that event ends."""
        return len(b"".join(self.every[:sequence]))

    @invariant()
    def it_counts_all_and_holds_the_end(self) -> None:
        journal = self.journal
        assert (journal.end, journal.last) == (self.size, len(self.every))
        assert journal.start == self.at(journal.before)
        assert journal.statistics().held == journal.end - journal.start
        held = list(journal.held())
        assert b"".join(data for data, _ in held) == b"".join(self.every[journal.before :])
        assert sum(count for _, count in held) == journal.last - journal.before
        edges = {0}
        for count in self.batches:
            edges.add(max(edges) + count)
        assert journal.before in edges, "no batch is cut"

    @rule(share=st.floats(0, 1), most=st.integers(1, 60))
    def read_on_from_anywhere(self, share: float, most: int) -> None:
        """From the place after an event, as readers do, to the end."""
        journal, sequence = self.journal, int(len(self.every) * share)
        if sequence < journal.before:
            for ask in (lambda: journal.after(sequence, LineCount.cut), lambda: journal.read(self.at(sequence), most)):
                try:
                    ask()
                except Expired:
                    continue
                assert self.at(sequence) == journal.start == journal.end
            return
        position = journal.after(sequence, LineCount.cut)
        assert position == self.at(sequence)
        taken = b""
        while data := journal.read(position, most):
            taken += data
            position += len(data)
        assert taken == b"".join(self.every[sequence:])

    @rule(beyond=st.integers(1, 9))
    def nothing_is_beyond(self, beyond: int) -> None:
        try:
            self.journal.after(len(self.every) + beyond, LineCount.cut)
        except IndexError:
            return
        raise AssertionError("there is no such event")


TestJournal = Model.TestCase
TestJournal.settings = settings(unhurried, max_examples=40, stateful_step_count=25)
