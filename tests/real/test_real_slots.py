"""llama.cpp's own word for its slots: how many it has, and when one is really free."""

import time

import pytest
from support.llama import FIXED, LONG, SLOW_S, generating, port_of, settled
from support.raw import CHAT, RawClient

from edge.cli.llama_server import LlamaServer
from edge.policy.queue.admission import Admission
from edge.policy.queue.lanes import Claim
from edge.settings import Queue, Upstream
from edge.upstream.discovery.servers import Kind, identify
from edge.upstream.idle import IdleWatch, running_on
from edge.upstream.pool import Pool
from edge.upstream.queues import rules_of

pytestmark = pytest.mark.real

ASKED = {**FIXED, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2000, "ignore_eos": True}


class Told:
    """A waiter: is granted its slot."""

    at: float | None = None

    def granted(self, _waiting) -> None:
        self.at = time.monotonic()

    def refused(self, refusal) -> None:
        raise AssertionError(refusal)


async def test_a_slot_that_was_cut_is_granted_again_when_the_model_has_stopped(llama: LlamaServer) -> None:
    await settled(llama)
    pool = Pool(Upstream(name="x", url=llama.url))
    watch = IdleWatch(pool, lambda: Kind.LLAMA_CPP, time.monotonic)
    admission = Admission(rules_of(Queue()))
    try:
        found = await identify(pool)
        assert (found.kind, found.slots) == (Kind.LLAMA_CPP, 2)
        queue = admission.queue("x", 1, SLOW_S, watch.watch)
        told, slot = Told(), queue.occupy(Claim("a"), time.monotonic())
        admission.enter(Claim("b"), [queue], told, time.monotonic())
        async with RawClient(port_of(llama)) as client:
            await client.post(CHAT, {**ASKED, "stream": True})
            await generating(llama)
            assert await running_on(pool, Kind.LLAMA_CPP) == 1
            slot.release(time.monotonic(), draining=True)
            watching = watch._task
            assert watching is not None
            await client.until(b"data: ")
            assert told.at is None, "the model is still at it"
            client.reset()
        await watching
        assert told.at is not None
        assert await running_on(pool, Kind.LLAMA_CPP) == 0
        assert 0 < queue.statistics(time.monotonic()).totals.zombie_s < SLOW_S
    finally:
        await watch.close()
        await pool.close()
