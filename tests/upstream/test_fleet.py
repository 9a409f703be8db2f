"""Upstreams are watched: up and down, their models, what is told about them, and nothing is left behind."""

import asyncio
import time

import orjson
import pytest
from support.hanging import HANG_S, hang_limit
from support.lookalikes import Log, Lookalike, Way, edge, fleet_of, free_port, listing, llama_cpp, ollama, vllm

from edge.policy.queue.lanes import Claim
from edge.policy.queue.refusal import Refusal, RefusalReason
from edge.protocol.surface import Surface
from edge.settings import Discovery, Queue, Settings, Upstream
from edge.upstream import fleet as fleet_module
from edge.upstream.discovery import servers
from edge.upstream.fleet import Fleet, Member


def at(server, name: str = "local", **settings) -> Upstream:
    return Upstream(name=name, url=server.url, **settings)


async def test_a_configured_upstream_is_known_before_the_first_look_but_not_up():
    async with fleet_of(Upstream(name="local", url="http://127.0.0.1:1")) as fleet:
        (member,) = fleet.members
        assert (member.up, member.why) == (False, "has not answered yet")


async def test_the_first_look_is_over_when_start_returns():
    async with vllm("org/big") as server, fleet_of(at(server)) as fleet:
        await fleet.start()
        (member,) = fleet.members
        assert (True, {"org/big"}) == (member.up, member.models)
        assert Surface.RESPONSES in member.surfaces
        assert repr(member) == f"<Member local vLLM {server.url} up, 1 models, 0 active>"


async def test_a_server_that_hangs_does_not_hold_up_the_start(monkeypatch):
    monkeypatch.setattr(fleet_module, "FIRST_LOOK_S", 0.05)
    async with (
        vllm() as good,
        Lookalike(v1__models="hang") as hanging,
        fleet_of(at(hanging, "hanging"), at(good, "good")) as fleet,
    ):
        await fleet.start()
        assert [m.up for m in fleet.members] == [False, True]


async def test_what_the_settings_say_of_an_upstream_wins_over_what_its_kind_does():
    async with llama_cpp() as server, fleet_of(at(server, surfaces=["chat", "responses"], repairs=[])) as fleet:
        await fleet.look()
        (member,) = fleet.members
    assert ({Surface.CHAT, Surface.RESPONSES}, frozenset()) == (member.native, member.repairs)


async def test_a_configured_server_without_a_model_list_is_trusted_with_any_model():
    async with Lookalike() as server, fleet_of(at(server)) as fleet:
        await fleet.look()
        (member,) = fleet.members
    assert (True, True, frozenset()) == (member.up, member.any_model, member.models)


async def test_a_llama_cpp_with_several_models_does_not_answer_any_name():
    async with llama_cpp("a", "b") as server, fleet_of(at(server)) as fleet:
        await fleet.look()
        assert not fleet.members[0].any_model


async def test_a_configured_ollama_is_up_whatever_it_was_called():
    async with ollama("llama3") as server:
        for kind in ("openai-compatible", "ollama"):
            async with fleet_of(at(server, kind=kind)) as fleet:
                await fleet.look()
                (member,) = fleet.members
                assert (member.up, member.kind) == (True, "Ollama")
                assert [card["id"] for card in fleet.models()] == ["llama3"]


async def test_a_simulator_beside_a_server_is_up_with_its_own_models_only():
    """It does not answer in the place of a model that nobody has."""
    async with vllm("org/big") as server, fleet_of(at(server), Upstream(name="sim", kind="simulator")) as fleet:
        await fleet.start()
        real, simulated = fleet.members
        assert (real.up, simulated.up, simulated.any_model) == (True, True, False)
        assert [card["id"] for card in fleet.models()][:2] == ["org/big", "echo"]
        assert fleet.ready()[1]["upstreams"]["sim"]["kind"] == "simulator"


async def test_edge_itself_is_never_its_own_upstream_but_another_edge_may_be_configured():
    async with edge() as server:
        async with fleet_of(at(server), own_ports={server.port}) as fleet:
            await fleet.look()
            assert (fleet.members[0].up, fleet.members[0].why) == (False, "is this Edge itself")
        async with fleet_of(at(server)) as fleet:
            await fleet.look()
            assert fleet.members[0].up


async def test_coming_going_and_changing_are_told_once_each():
    log, port = Log(), free_port()
    upstream = Upstream(name="local", url=f"http://127.0.0.1:{port}")
    async with fleet_of(upstream, log=log) as fleet:
        await fleet.look()
        await fleet.look()
        async with llama_cpp("a", port=port) as server:
            await fleet.look()
            await fleet.look()
            server.routes["/v1/models"] = listing("a", "b", owned_by="llamacpp")
            await fleet.look()
            await fleet.look()
            assert fleet.members[0].models == {"a", "b"}
        await fleet.look()
        await fleet.look()
    assert log.events == ["upstream not usable", "upstream found", "upstream models changed", "upstream lost"]
    assert log.entries[-1]["why"] == "refuses connections: nothing listens there"


async def test_a_model_list_that_only_has_a_new_creation_time_has_not_changed():
    """llama.cpp writes the current time into each answer."""
    log = Log()
    async with llama_cpp("a") as server, fleet_of(at(server), log=log) as fleet:
        await fleet.look()
        server.routes["/v1/models"]["data"][0]["created"] += 5
        await fleet.look()
    assert log.events == ["upstream found"]


async def test_a_failure_to_connect_takes_an_upstream_down_until_it_answers_again():
    log = Log()
    async with vllm() as server, fleet_of(at(server), log=log) as fleet:
        await fleet.look()
        (member,) = fleet.members
        fleet.note_failure(member)
        fleet.note_failure(member)
        assert (member.up, fleet.ready()[0]) == (False, False)
        await fleet.look()
        assert member.up
    assert log.events == ["upstream found", "upstream lost", "upstream found"]


async def test_one_late_answer_does_not_take_an_upstream_down_a_second_does(monkeypatch):
    async with vllm() as server, fleet_of(at(server)) as fleet:
        await fleet.look()
        (member,) = fleet.members
        monkeypatch.setattr(servers, "PROBE_S", 0.05)
        server.routes["/v1/models"] = "hang"
        await fleet.look()
        assert member.up
        await fleet.look()
        assert not member.up


async def test_a_server_that_is_late_because_it_works_for_us_stays_up(monkeypatch):
    """Some servers do one thing at a time: while they generate they answer nothing else."""
    async with vllm() as server, fleet_of(at(server)) as fleet:
        await fleet.look()
        (member,) = fleet.members
        member.active += 1
        monkeypatch.setattr(servers, "PROBE_S", 0.02)
        server.routes["/v1/models"] = "hang"
        for _ in range(3):
            await fleet.look()
        assert member.up


async def test_a_server_that_is_down_is_still_known_for_its_models_but_does_not_list_them():
    port = free_port()
    async with fleet_of(Upstream(name="local", url=f"http://127.0.0.1:{port}")) as fleet:
        async with vllm("org/big", port=port):
            await fleet.look()
        await fleet.look()
        (member,) = fleet.members
        assert (False, {"org/big"}, []) == (member.up, member.models, fleet.models())


async def test_the_model_list_has_each_id_once_in_the_order_of_the_upstreams_with_unknown_fields_kept():
    first = {"object": "list", "data": [{"id": "z/one", "max_model_len": 4096, "owned_by": "vllm", "created": 7}]}
    second = {"object": "list", "data": [{"id": "z/one", "owned_by": "other"}, {"id": "a"}]}
    async with (
        Lookalike(v1__models=first) as one,
        Lookalike(v1__models=second) as two,
        fleet_of(at(one, "one"), at(two, "two")) as fleet,
    ):
        await fleet.look()
        listed, since = fleet.models(), fleet.members[1].since
        assert fleet.model("z/one") == listed[0]
        assert fleet.model("z") is None
    assert listed == [
        {"id": "z/one", "max_model_len": 4096, "owned_by": "vllm", "created": 7, "object": "model"},
        {"id": "a", "object": "model", "created": since, "owned_by": "OpenAI-compatible"},
    ]


async def test_readiness_tells_each_upstreams_state_and_no_secret():
    async with vllm() as good:
        secret = Upstream(
            name="far", url=f"http://user:hunter2@127.0.0.1:{free_port()}", headers={"X-Secret": "hunter2"}
        )
        async with fleet_of(at(good, "good", api_key="hunter2"), secret) as fleet:
            await fleet.look()
            ready, told = fleet.ready()
            assert good.seen_headers[0]["Authorization"] == "Bearer hunter2"
            assert "hunter2" not in repr(fleet)
    assert (ready, told["ready"], told["reason"]) == (True, True, None)
    assert told["upstreams"]["good"] == {"up": True, "kind": "vLLM", "models": 1, "why": None}
    assert told["upstreams"]["far"]["why"] == "refuses connections: nothing listens there"
    assert b"hunter2" not in orjson.dumps(told)


async def test_readiness_says_where_was_looked_when_nothing_was_found():
    port = free_port()
    async with fleet_of(ports=[port]) as fleet:
        await fleet.look()
        ready, told = fleet.ready()
    assert (False, f"no model server has been found yet at http://127.0.0.1:{port}") == (ready, told["reason"])


async def test_looking_goes_on_in_the_background():
    looks = asyncio.Queue(maxsize=8)

    class Watched(dict):
        def get(self, path, default=None):
            if not looks.full():
                looks.put_nowait(path)
            return super().get(path, default)

    async with vllm() as server:
        server.routes = Watched(server.routes)
        settings = Settings(upstream=[at(server)], discovery=Discovery(interval_s=0.001))
        fleet = Fleet(settings, Way, log=Log().logger)
        try:
            await fleet.start()
            async with hang_limit():
                for _ in range(3):
                    await looks.get()
        finally:
            await fleet.close()


async def hanging_fleet(server) -> Fleet:
    """A fleet in the middle of a look."""
    fleet = Fleet(Settings(upstream=[at(server)]), Way, log=Log().logger)
    starting = asyncio.create_task(fleet.start())
    await server.called.wait()
    starting.cancel()
    await asyncio.wait([starting])
    return fleet


def ours(before: set) -> set:
    return {task for task in asyncio.all_tasks() - before if task.get_name().startswith("fleet") and not task.done()}


async def test_closing_in_the_middle_of_a_look_leaves_no_task_and_no_connection():
    async with Lookalike(v1__models="hang") as server:
        before = asyncio.all_tasks()
        fleet = await hanging_fleet(server)
        (member,) = fleet.members
        await fleet.close()
        assert (member.upstream.closed, member.upstream.pool.closed) == (1, True)
        assert ours(before) == set()
        await fleet.close()


@pytest.mark.parametrize("turns", range(8))
async def test_closing_that_is_cancelled_at_any_point_has_still_let_go_of_everything(turns):
    async with Lookalike(v1__models="hang") as server:
        before = asyncio.all_tasks()
        fleet = await hanging_fleet(server)
        (member,) = fleet.members
        closing = asyncio.create_task(fleet.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        if turns == 0:  # cancelled before it ran at all: nothing of ours can have happened
            await fleet.close()
        if ending := ours(before):
            await asyncio.wait(ending, timeout=HANG_S)
        assert ours(before) == set()
        assert (member.upstream.closed, member.upstream.pool.closed) == (1, True)


class Told:
    """What a waiter was told."""

    def __init__(self) -> None:
        self.slots: list = []
        self.refusals: list = []

    def granted(self, waiting) -> None:
        self.slots.append(waiting.slot)

    def refused(self, refusal) -> None:
        self.refusals.append(refusal)


def waits(fleet: Fleet, member: Member, told: Told):
    return fleet.admission.enter(Claim("a"), [member.queue("m")], told, time.monotonic())


async def test_slots_are_those_that_the_server_tells_and_nothing_is_granted_while_it_is_down():
    async with llama_cpp() as server:
        server.routes["/props"] = {"total_slots": 1}
        async with fleet_of(at(server)) as fleet:
            await fleet.look()
            (member,) = fleet.members
            first = waits(fleet, member, Told())
            told = Told()
            waits(fleet, member, told)
            assert (first.slot is not None, told.slots) == (True, [])
            fleet.note_failure(member)
            first.slot.release(time.monotonic())
            assert told.slots == [], "it is down"
            await fleet.look()
            assert len(told.slots) == 1


async def test_a_reload_brings_other_bounds_and_who_waits_for_an_upstream_that_leaves_is_refused():
    async with vllm() as server, vllm() as other, fleet_of(at(server, max_concurrency=1)) as fleet:
        await fleet.look()
        (member,) = fleet.members
        running, told = waits(fleet, member, Told()), Told()
        waits(fleet, member, told)
        same = Settings(upstream=[at(server, max_concurrency=1)], queue=Queue(interactive_length=1, drain_s=7.0))
        await fleet.reload(same)
        assert member.queue("m").slots.drain_s == 7.0
        assert isinstance(waits(fleet, member, Told()), Refusal)
        await fleet.reload(Settings(upstream=[at(other)]))
        assert [refusal.why for refusal in told.refusals] == [RefusalReason.CLOSED]
        running.slot.release(time.monotonic())
        await fleet.look()
        assert isinstance(waits(fleet, member, Told()), Refusal), "nobody waits for who has left"
        assert fleet.admission.statistics(0.0) == []


async def test_what_drains_when_all_is_closed_leaves_nothing():
    async with llama_cpp() as server, fleet_of(at(server, max_concurrency=1)) as fleet:
        await fleet.look()
        (member,) = fleet.members
        waits(fleet, member, Told()).slot.release(time.monotonic(), draining=True)
        assert member.queue("m").slots.draining == 1
