"""Fixtures that every test may use: the production event loop, a running Edge, and a look at what is left behind."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from fakes.model_server import FakeModel
from support.running import Running, make_settings, no_tasks_left, start

Serve = Callable[..., Awaitable[Running]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that Edge runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def fake() -> AsyncIterator[FakeModel]:
    """A fake model server."""
    async with FakeModel() as server:
        yield server


@pytest.fixture
async def serve(fake: FakeModel) -> AsyncIterator[Serve]:
    """Start an Edge: ``await serve(*urls, stream={...}, server={...}, ...)``; without urls, in front of ``fake``.

    At the end it is stopped, and no task, stream, slot or byte of the budget may be left.
    """
    before = asyncio.all_tasks()
    running: list[Running] = []

    async def serve(*urls: str, **sections: Any) -> Running:
        one = await start(make_settings(*(urls or (fake.url,)), **sections))
        running.append(one)
        return one

    yield serve
    for one in running:
        await one.stop()
    await no_tasks_left(before)
    gc.collect()  # an unclosed socket or transport warns now, and warnings are errors
