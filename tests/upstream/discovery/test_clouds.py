"""Looking at a cloud: when, what of, and what it means."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel

from edge.protocol.surface import Surface
from edge.settings import Upstream
from edge.upstream.discovery.clouds import LOOK_S, REFUSED_LOOK_S, CloudLook
from edge.upstream.discovery.servers import Kind
from edge.upstream.health import Member
from edge.upstream.pool import Pool

BUSY = [429, 500, 503, 529]


class Watch:
    """A cloud that is looked at, on a clock of the test's."""

    def __init__(self, fake: FakeModel) -> None:
        self.fake = fake
        settings = Upstream(name="cloud", kind="openai", url=fake.url, api_key="the-key")
        self.pool = Pool(settings)
        self.member = Member(settings, Kind.OPENAI)
        self.looking = CloudLook(Kind.OPENAI)
        self.now = 1000.0

    def answers(self, status: int, body: Any = None) -> None:
        self.fake.get["/v1/models"] = (status, {"Content-Type": "application/json"}, orjson.dumps(body))

    async def look(self, after_s: float = 0.0) -> Member:
        self.now += after_s
        self.member.update(await self.looking.look(self.pool, self.now, up=self.member.up))
        return self.member

    @property
    def looks(self) -> int:
        return len(self.fake.gets)


@pytest.fixture
async def watch(fake: FakeModel) -> AsyncIterator[Watch]:
    one = Watch(fake)
    yield one
    await one.pool.close()


async def test_while_it_is_up_it_is_looked_at_rarely(watch: Watch) -> None:
    assert (await watch.look()).up
    await watch.look(LOOK_S - 1)
    assert watch.looks == 1
    watch.fake.models = ["m", "new"]
    assert (await watch.look(1)).models == {"m", "new"}


async def test_one_that_refuses_is_looked_at_now_and_then(watch: Watch) -> None:
    watch.answers(401, {"error": "no"})
    member = await watch.look()
    assert (member.up, member.why) == (False, "does not take the API key (it answers 401 to /v1/models)")
    await watch.look(REFUSED_LOOK_S - 1)
    assert watch.looks == 1
    watch.fake.get.clear()
    assert (await watch.look(1)).up


async def test_after_a_call_failed_it_is_looked_at_at_once(watch: Watch) -> None:
    await watch.look()
    watch.member.fail("could not be connected to")
    assert (await watch.look()).up
    assert watch.looks == 2


async def test_one_that_cannot_be_reached_is_looked_at_each_time(watch: Watch) -> None:
    await watch.fake.refuse()
    assert (await watch.look()).why == "refuses connections: nothing listens there"
    await watch.fake.listen()
    assert (await watch.look()).up


@pytest.mark.parametrize("status", BUSY)
async def test_one_that_is_too_busy_to_list_its_models_is_still_used(watch: Watch, status: int) -> None:
    await watch.look()
    watch.answers(status)
    member = await watch.look(LOOK_S)
    assert (member.up, member.models, watch.looks) == (True, {"m"}, 2)


@pytest.mark.parametrize("status", BUSY)
async def test_one_that_has_never_listed_its_models_is_not(watch: Watch, status: int) -> None:
    watch.answers(status)
    member = await watch.look()
    assert (member.up, member.why) == (False, f"answers {status} to /v1/models")


async def test_what_has_no_list_answers_any_model(watch: Watch) -> None:
    """Such as a gateway in front of the cloud."""
    watch.answers(404, {"error": "no such route"})
    member = await watch.look()
    assert (member.up, member.any_model, member.kind) == (True, True, Kind.OPENAI)


async def test_what_lists_something_else_is_not_used(watch: Watch) -> None:
    watch.answers(200, {"hello": "world"})
    assert "not a list of models" in ((await watch.look()).why or "")


def test_a_cloud_is_known_as_such_before_it_has_answered() -> None:
    member = Member(Upstream(name="c", kind="openai", url="https://h", api_key="the-key"), Kind.OPENAI)
    assert Surface.RESPONSES in member.native
    to = member.target(Surface.OLLAMA_EMBED)
    assert to is not None
    assert to.cloud
