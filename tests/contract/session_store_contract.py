"""What every session store promises (``edge.store.ports``), as one suite that each kind of store runs.

A kind's test module subclasses ``SessionStoreContract`` and gives it the ``opened`` fixture: a function that makes an
empty store with given bounds and a clock.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from edge.settings import Sessions
from edge.store.ports import LEASE_S, Conversation, SessionStore, Turn

NOW = 1_800_000_000.0

Opened = Callable[..., SessionStore]  # (bounds, clock)


@dataclass
class Clock:
    """Unix time that only a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def said(text: str, at: float = NOW) -> Turn:
    return Turn("user", text, at)


def told(text: str, at: float = NOW, *, partial: bool = False) -> Turn:
    return Turn("assistant", text, at, partial)


def contents(found: Conversation | None) -> list[str]:
    return [] if found is None else [turn.content for turn in found.turns]


class SessionStoreContract:
    """See the module."""

    @pytest.fixture
    def opened(self) -> Opened:
        """Make an empty store; it is closed at the end."""
        raise NotImplementedError

    async def test_there_is_nothing_at_first(self, opened: Opened) -> None:
        store = opened(Sessions(), Clock())
        assert await store.read("a", "s") is None
        assert await store.delete("a", "s") is False

    async def test_what_was_appended_comes_back_as_it_was(self, opened: Opened) -> None:
        clock = Clock()
        store = opened(Sessions(), clock)
        first = (said("hi\n\x00\U0001f388", NOW), told("there", NOW + 1))
        clock.now = NOW + 9
        second = (said("and?", NOW + 8), told("no m", NOW + 9, partial=True))
        await store.append("a", "s", *first)
        await store.append("a", "s", *second)
        assert await store.read("a", "s") == Conversation((*first, *second), created=NOW, updated=NOW + 9)

    async def test_each_principal_and_session_has_its_own(self, opened: Opened) -> None:
        store = opened(Sessions(), Clock())
        for principal, session in (("a", "s"), ("b", "s"), ("a", "t"), ("as", "")):
            await store.append(principal, session, said(principal), told(session))
        assert contents(await store.read("a", "s")) == ["a", "s"]
        assert contents(await store.read("b", "s")) == ["b", "s"]
        assert await store.delete("a", "s") is True
        assert await store.read("a", "s") is None
        assert contents(await store.read("a", "t")) == ["a", "t"]
        assert contents(await store.read("as", "")) == ["as", ""]

    async def test_after_a_deletion_it_begins_anew(self, opened: Opened) -> None:
        store = opened(Sessions(), Clock())
        await store.append("a", "s", said("1"), told("2"))
        await store.delete("a", "s")
        await store.append("a", "s", said("3", NOW + 5), told("4", NOW + 5))
        assert await store.read("a", "s") == Conversation((said("3", NOW + 5), told("4", NOW + 5)), NOW + 5, NOW + 5)

    @pytest.mark.parametrize(("most", "kept"), [(2, ["4", "5"]), (3, ["4", "5"]), (4, ["2", "3", "4", "5"])])
    async def test_the_oldest_turns_over_the_number_go_in_pairs(
        self, opened: Opened, most: int, kept: list[str]
    ) -> None:
        store = opened(Sessions(max_turns=most), Clock())
        for number in (0, 2, 4):
            await store.append("a", "s", said(str(number)), told(str(number + 1)))
        assert contents(await store.read("a", "s")) == kept

    async def test_the_oldest_turns_over_the_bytes_go_in_pairs(self, opened: Opened) -> None:
        """Bytes, not characters."""
        store = opened(Sessions(max_bytes=1024), Clock())
        await store.append("a", "s", said("x" * 100), told("y" * 100))
        await store.append("a", "s", said("é" * 206), told("z" * 412))
        assert len(contents(await store.read("a", "s"))) == 4
        await store.append("a", "s", said("p"), told("q"))
        assert contents(await store.read("a", "s")) == ["é" * 206, "z" * 412, "p", "q"]

    async def test_old_turns_go_by_themselves_and_with_the_last_the_session(self, opened: Opened) -> None:
        clock = Clock()
        store = opened(Sessions(max_age_s=60), clock)
        await store.append("a", "s", said("1", NOW), told("2", NOW))
        clock.now = NOW + 50
        await store.append("a", "s", said("3", NOW + 50), told("4", NOW + 50))
        clock.now = NOW + 61
        assert contents(await store.read("a", "s")) == ["3", "4"]
        clock.now = NOW + 111
        assert await store.read("a", "s") is None
        assert await store.delete("a", "s") is False

    async def test_an_aged_session_begins_anew(self, opened: Opened) -> None:
        clock = Clock()
        store = opened(Sessions(max_age_s=60), clock)
        await store.append("a", "s", said("1", NOW), told("2", NOW))
        clock.now = NOW + 100
        await store.append("a", "s", said("3", NOW + 100), told("4", NOW + 100))
        found = await store.read("a", "s")
        assert (contents(found), found and found.created) == (["3", "4"], NOW + 100)

    async def test_the_session_unused_for_longest_goes_first(self, opened: Opened) -> None:
        store = opened(Sessions(max_sessions=2), Clock())
        for session in ("s", "t", "s", "u"):
            await store.append("a", session, said("q"), told("r"))
        there = {session: await store.read("a", session) is not None for session in "stu"}
        assert there == {"s": True, "t": False, "u": True}

    async def test_appends_at_once_to_several_sessions_all_arrive(self, opened: Opened) -> None:
        store = opened(Sessions(), Clock())
        await asyncio.gather(*(store.append("a", str(n), said(str(n)), told("r")) for n in range(20)))
        assert [contents(await store.read("a", str(n))) for n in range(20)] == [[str(n), "r"] for n in range(20)]

    async def test_a_session_that_was_yielded_up_can_be_claimed_again(self, opened: Opened) -> None:
        store = opened(Sessions(), Clock())
        for _ in range(2):
            assert await store.claim("a", "s") is True
            assert await store.claim("a", "t") is True
            await store.yield_up("a", "s")
            await store.yield_up("a", "t")
        await store.yield_up("a", "never claimed")
        assert await store.read("a", "s") is None


class SharedSessionStoreContract:
    """Of a store that several processes share and that outlives them; each ``opened`` store is as if in its own."""

    @pytest.fixture
    def opened(self) -> Opened:
        """Open a store, over the same place whenever a test asks; all are closed at the end."""
        raise NotImplementedError

    async def vanish(self, store: Any) -> None:
        """End a store as ``kill -9`` ends its process."""
        raise NotImplementedError

    async def renew(self, store: Any) -> None:
        """Let a store renew its lease now, as it does by itself every ``RENEW_S``."""
        raise NotImplementedError

    async def test_what_one_process_keeps_another_finds_even_when_it_is_gone(self, opened: Opened) -> None:
        one, other = opened(Sessions(), Clock()), opened(Sessions(), Clock())
        await one.append("a", "s", said("q\x00"), told("é", partial=True))
        expected = Conversation((said("q\x00"), told("é", partial=True)), NOW, NOW)
        assert await other.read("a", "s") == expected
        await one.close()
        await other.append("a", "t", said("q"), told("r"))
        await other.close()
        third = opened(Sessions(), Clock())
        assert await third.read("a", "s") == expected
        assert contents(await third.read("a", "t")) == ["q", "r"]

    async def test_pairs_of_several_processes_do_not_overwrite_each_other(self, opened: Opened) -> None:
        stores = [opened(Sessions(), Clock()) for _ in range(2)]
        await asyncio.gather(
            *(stores[n % 2].append("a", "s", said(str(n), NOW + n), told("r", NOW + n)) for n in range(20))
        )
        found = contents(await stores[0].read("a", "s"))
        assert sorted(found) == sorted(text for n in range(20) for text in (str(n), "r"))

    async def test_a_claim_excludes_other_processes_until_it_is_yielded(self, opened: Opened) -> None:
        one, other = opened(Sessions(), Clock()), opened(Sessions(), Clock())
        assert await one.claim("a", "s") is True
        assert await other.claim("a", "s") is False
        assert await other.claim("b", "s") is True
        assert await other.claim("a", "t") is True
        await other.yield_up("a", "s")  # which is not its own
        assert await other.claim("a", "s") is False
        await one.yield_up("a", "s")
        assert await other.claim("a", "s") is True
        assert await one.claim("a", "s") is False

    async def test_of_many_that_claim_at_once_one_succeeds(self, opened: Opened) -> None:
        stores = [opened(Sessions(), Clock()) for _ in range(4)]
        assert sum(await asyncio.gather(*(store.claim("a", "s") for store in stores))) == 1

    async def test_the_claims_of_a_process_that_is_gone_lapse_with_its_lease(self, opened: Opened) -> None:
        clock = Clock()
        one, other = opened(Sessions(), clock), opened(Sessions(), clock)
        assert await one.claim("a", "s") is True
        await self.vanish(one)
        clock.now += LEASE_S - 1
        await self.renew(other)
        assert await other.claim("a", "s") is False
        clock.now += 2
        assert await other.claim("a", "s") is True

    async def test_the_claims_of_a_living_process_stay(self, opened: Opened) -> None:
        clock = Clock()
        one, other = opened(Sessions(), clock), opened(Sessions(), clock)
        assert await one.claim("a", "s") is True
        for _ in range(4):
            clock.now += LEASE_S - 1
            await self.renew(one)
            await self.renew(other)
            assert await other.claim("a", "s") is False

    async def test_closing_lets_go_of_claims(self, opened: Opened) -> None:
        one, other = opened(Sessions(), Clock()), opened(Sessions(), Clock())
        assert await one.claim("a", "s") is True
        await one.close()
        assert await other.claim("a", "s") is True
