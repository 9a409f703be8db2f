"""How many slots a server has, and when one that was cut off is free again: over real sockets, by its own answers."""

import asyncio
import time
from contextlib import asynccontextmanager

import orjson
import pytest
from support.hanging import hang_limit
from support.lookalikes import Lookalike, llama_cpp, ollama, vllm

from edge.policy.queue.admission import Admission
from edge.policy.queue.lanes import Claim
from edge.policy.queue.queue import Queue, Waiting
from edge.policy.queue.slots import Slot
from edge.settings import Queue as QueueSettings
from edge.settings import Upstream
from edge.upstream import idle as idle_module
from edge.upstream.discovery.servers import Found, Kind, identify
from edge.upstream.discovery.working import busy_slots, listed_slots, running_requests, total_slots
from edge.upstream.health import Member
from edge.upstream.idle import PROBES, UNPROVEN_S, IdleWatch, Probe, drain_s, running_on
from edge.upstream.pool import Pool
from edge.upstream.queues import MemberQueues, rules_of


def slots(*processing: bool) -> list[dict]:
    return [{"id": n, "is_processing": works} for n, works in enumerate(processing)]


class Told:
    """What a waiter was told."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    def granted(self, _waiting) -> None:
        self.called.set()

    def refused(self, refusal) -> None:
        raise AssertionError(refusal)


@asynccontextmanager
async def pool_of(server):
    pool = Pool(Upstream(name="x", url=server.url))
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def watched(server, kind: Kind, capacity: int = 1, drains_s: float = 60.0):
    """A queue in front of a server, and the watch over it."""
    async with pool_of(server) as pool:
        watch = IdleWatch(pool, lambda: kind, time.monotonic)
        queue = Admission(rules_of(QueueSettings())).queue("x", capacity, drains_s, watch.watch)
        try:
            yield queue, watch
        finally:
            await watch.close()


def taken(queue: Queue) -> Slot:
    return queue.occupy(Claim("a"), time.monotonic() - 1)


async def free(queue: Queue) -> None:
    async with hang_limit():
        while queue.slots.taken:
            await asyncio.sleep(0.005)


class TestWhatIsDetected:
    async def look(self, server, before: Found | None = None) -> Found:
        async with pool_of(server) as pool:
            return await identify(pool, before)

    async def test_llama_cpp_tells_its_slots(self):
        async with llama_cpp() as server:
            server.routes["/props"] = {"total_slots": 4}
            assert (await self.look(server)).slots == 4
            assert server.asked == ["/v1/models", "/props"]

    async def test_by_its_list_where_it_does_not_tell_the_number(self):
        async with llama_cpp() as server:
            server.routes["/slots"] = slots(False, True, False)
            assert (await self.look(server)).slots == 3

    async def test_once_after_each_start(self):
        async with llama_cpp() as server:
            server.routes["/props"] = {"total_slots": 4}
            first = await self.look(server)
            server.asked.clear()
            second = await self.look(server, first)
            assert (second.slots, server.asked) == (4, ["/v1/models"])
            up, server.routes["/v1/models"] = server.routes["/v1/models"], (503, {})
            down = await self.look(server, second)
            server.routes |= {"/v1/models": up, "/props": {"total_slots": 1}}
            assert (await self.look(server, down)).slots == 1

    async def test_others_do_not_tell(self):
        async with vllm() as server:
            assert (await self.look(server)).slots is None
            assert server.asked == ["/v1/models"]

    @pytest.mark.parametrize(
        ("kind", "told", "setting", "expected"),
        [
            (Kind.LLAMA_CPP, 4, None, 4),
            (Kind.LLAMA_CPP, 4, 2, 2),
            (Kind.LLAMA_CPP, 4, 0, None),
            (Kind.LLAMA_CPP, None, None, None),
            (Kind.OLLAMA, None, None, 1),
            (Kind.OLLAMA, None, 0, None),
            (Kind.OLLAMA, None, 3, 3),
            (Kind.VLLM, None, None, None),
            (Kind.VLLM, None, 8, 8),
        ],
    )
    def test_a_setting_wins_over_what_is_told_and_0_is_no_limit(self, kind, told, setting, expected):
        member = Member(Upstream(name="x", url="http://h", max_concurrency=setting))
        member.update(Found(kind, up=True, cards=(), slots=told))
        assert member.slots == expected


class TestWhatServersTell:
    def test_llama_cpp(self):
        assert total_slots(b'{"total_slots":2,"model_path":"x"}') == 2
        assert listed_slots(orjson.dumps(slots(True, False))) == 2
        assert busy_slots(orjson.dumps(slots(True, False, True))) == 2

    def test_vllm(self):
        metrics = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/big {}"} 3.0
vllm:num_requests_running{engine="1",model_name="org/big {}"} 1.0
vllm:num_requests_waiting{engine="0",model_name="org/big {}"} 7.0
"""
        assert running_requests(metrics) == 4
        assert running_requests(b"vllm:num_requests_running 0\n") == 0

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]x", b"null", b"[1]", b'{"total_slots":true}', b'{"total_slots":0}', b'{"total_slots":"4"}',
         b'[{"id":0}]', b'{"total_slots":99999999999}', b"vllm:num_requests_running{} 1e999",
         b"vllm:num_requests_running ee", b"<html>"],
    )  # fmt: skip
    def test_nonsense_is_nothing(self, body):
        assert (total_slots(body), busy_slots(body), running_requests(body)) == (None, None, None)


class TestTheWatch:
    async def test_a_slot_that_was_cut_is_free_when_the_server_is_seen_idle(self):
        async with llama_cpp() as server, watched(server, Kind.LLAMA_CPP) as (queue, _):
            server.routes["/slots"] = slots(True)
            taken(queue).release(time.monotonic(), draining=True)
            told = Told()
            assert isinstance(queue_wait(queue, told), Waiting)
            async with hang_limit():
                while server.asked.count("/slots") < 3:
                    await server.called.wait()
                    server.called.clear()
            assert not told.called.is_set(), "it was seen at work all the while"
            server.routes["/slots"] = slots(False)
            async with hang_limit():
                await told.called.wait()
            assert queue.slots.draining == 0

    async def test_it_is_asked_only_while_something_drains(self):
        async with llama_cpp() as server, watched(server, Kind.LLAMA_CPP) as (queue, watch):
            server.routes["/slots"] = slots(False)
            taken(queue).release(time.monotonic())
            assert watch._task is None
            for _ in range(2):
                taken(queue).release(time.monotonic(), draining=True)
                await free(queue)
                async with hang_limit():
                    await asyncio.wait([watch._task])
            assert server.asked == ["/slots", "/slots"]

    async def test_other_requests_that_run_do_not_hold_what_is_over(self):
        async with vllm() as server, watched(server, Kind.VLLM, capacity=3) as (queue, _):
            server.routes["/metrics"] = 'vllm:num_requests_running{engine="0"} 1.0\n'
            first, second = taken(queue), taken(queue)
            second.release(time.monotonic(), draining=True)
            async with hang_limit():
                while queue.slots.draining:
                    await asyncio.sleep(0.005)
            assert queue.slots.busy == 1
            first.release(time.monotonic())

    @pytest.mark.parametrize("answer", [(404, ""), (500, ""), "<html>", (200, [])])
    async def test_a_server_that_does_not_tell_is_given_its_time(self, answer):
        async with llama_cpp() as server, watched(server, Kind.VLLM, drains_s=0.2) as (queue, _):
            server.routes["/metrics"] = answer
            began = time.monotonic()
            taken(queue).release(began, draining=True)
            await free(queue)
            assert time.monotonic() - began >= 0.2

    async def test_nor_does_one_that_hangs_or_is_gone_hold_it_for_ever(self, monkeypatch):
        monkeypatch.setattr(idle_module, "PROBE_S", 0.05)
        async with Lookalike(slots="hang") as server, pool_of(server) as pool:
            assert await running_on(pool, Kind.LLAMA_CPP) is None
            async with watched(server, Kind.LLAMA_CPP, drains_s=0.2) as (queue, _):
                taken(queue).release(time.monotonic(), draining=True)
                await free(queue)
        async with pool_of(server) as pool:
            assert await running_on(pool, Kind.LLAMA_CPP) is None

    async def test_a_vllm_has_stopped_after_its_next_step_whatever_it_works_on(self, monkeypatch):
        soon = Probe("/metrics", running_requests, 0.1)
        monkeypatch.setattr(idle_module, "PROBES", {**PROBES, Kind.VLLM: soon})
        async with vllm() as server, watched(server, Kind.VLLM) as (queue, _):
            server.routes["/metrics"] = "vllm:num_requests_running 9.0\n"
            taken(queue).release(time.monotonic(), draining=True)
            await free(queue)

    async def test_ollama_is_not_asked_what_it_cannot_tell(self):
        async with ollama("m") as server, watched(server, Kind.OLLAMA, drains_s=0.1) as (queue, _):
            taken(queue).release(time.monotonic(), draining=True)
            await free(queue)
            assert server.asked == []

    async def test_closed_while_something_drains_it_leaves_no_task(self):
        async with llama_cpp() as server, watched(server, Kind.LLAMA_CPP) as (queue, watch):
            taken(queue).release(time.monotonic(), draining=True)
            await watch.close()
            assert queue.slots.draining == 1
            assert repr(watch) == f"<IdleWatch <Pool 127.0.0.1:{server.port} 0 idle of 0> 1 draining>"

    def test_how_long_each_kind_may_drain(self):
        assert drain_s(Kind.LLAMA_CPP, 10.0) == drain_s(Kind.VLLM, 10.0) == 10.0
        assert drain_s(Kind.OLLAMA, 10.0) == drain_s(Kind.GENERIC, 10.0) == UNPROVEN_S
        assert drain_s(Kind.OLLAMA, 1.0) == 1.0
        assert drain_s(Kind.OPENAI, 10.0) == drain_s(Kind.SIMULATOR, 10.0) == 0.0


def queue_wait(queue: Queue, told: Told):
    """Somebody waits in a queue that was made by another admission's rules."""
    return Admission(rules_of(QueueSettings())).enter(Claim("b"), [queue], told, time.monotonic())


class TestAMembersQueues:
    @asynccontextmanager
    async def made(self, server, *, kind: Kind, models=("m:latest",), **settings):
        admission = Admission(rules_of(QueueSettings()))
        member = Member(Upstream(name="gpu", url=server.url, **settings))
        member.update(Found(kind, up=True, cards=tuple({"id": name} for name in models)))
        async with pool_of(server) as pool:
            queues = MemberQueues(admission, member, pool, 10.0, time.monotonic)
            try:
                yield admission, member, queues
            finally:
                await queues.close()

    async def test_one_for_all_models(self):
        async with llama_cpp() as server, self.made(server, kind=Kind.LLAMA_CPP, max_concurrency=2) as (_, __, queues):
            queue = queues.of("a")
            assert queue is queues.of("b") is queues.of(None)
            assert (queue.name, queue.slots.capacity, queue.slots.drain_s) == ("gpu", 2, 10.0)

    async def test_ollama_has_one_for_each_model_it_lists(self):
        async with (
            ollama() as server,
            self.made(server, kind=Kind.OLLAMA, models=("a:latest", "b:7b")) as (admission, member, queues),
        ):
            first = queues.of("a")
            assert first is queues.of("a:latest")
            assert first is not queues.of("b:7b")
            assert queues.of("unknown") is queues.of("nobody's") is queues.of(None)
            assert (first.name, first.slots.capacity, first.slots.drain_s) == ("gpu (a:latest)", 1, UNPROVEN_S)
            member.update(Found(Kind.OLLAMA, up=True, cards=({"id": "a:latest"},)))
            queues.apply()
            assert [known.name for known in admission.statistics(0.0)] == ["gpu (a:latest)", "gpu"]

    async def test_down_it_grants_nothing_and_up_again_it_goes_on(self):
        async with llama_cpp() as server, self.made(server, kind=Kind.LLAMA_CPP) as (admission, member, queues):
            member.fail("is gone")
            queue = queues.of("a")
            told = Told()
            waiting = admission.enter(Claim("a"), [queue], told, time.monotonic())
            assert isinstance(waiting, Waiting)
            queues.apply()
            assert waiting.slot is None
            member.update(Found(Kind.LLAMA_CPP, up=True, cards=(), slots=3))
            queues.apply(5.0)
            assert waiting.slot is not None
            assert (queue.slots.capacity, queue.slots.drain_s) == (3, 5.0)
            member.update(Found(Kind.LLAMA_CPP, up=False, why="is loading its model"))
            queues.apply()
            assert not queue.open
            member.update(Found(Kind.LLAMA_CPP, up=True, cards=()))
            queues.apply()
            assert queue.slots.capacity == 3, "too busy to tell is not without a limit"

    async def test_let_go_of_it_serves_nobody_and_what_runs_runs_on(self):
        async with llama_cpp() as server, self.made(server, kind=Kind.LLAMA_CPP, max_concurrency=1) as made:
            admission, _, queues = made
            slot = queues.of("a").occupy(Claim("a"), time.monotonic())
            queues.leave()
            assert not queues.of("a").open
            assert admission.statistics(0.0) == []
            slot.release(time.monotonic())
            queues.apply()
            assert not queues.of("a").open
