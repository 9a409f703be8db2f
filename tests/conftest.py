"""Fixtures that every test may use: the production event loop, a running Edge, and a look at what is left behind."""

import asyncio
import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web_app
from fakes.model_server import FakeModel
from support.dispositions import hand_on_nothing
from support.hanging import HANG_S
from support.running import Running, Serve, make_settings, no_tasks_left, start

from edge.cli.child import Unavailable
from edge.cli.llama_server import LlamaServer
from edge.cli.model_file import model_path
from edge.upstream import fleet
from edge.upstream.discovery import servers


def pytest_configure() -> None:
    """No test, nor a process that one starts, keeps anything where the user's own Edge does, or finds it there."""
    state = tempfile.mkdtemp(prefix="edge-state-")
    atexit.register(shutil.rmtree, state, ignore_errors=True)
    os.environ["XDG_STATE_HOME"] = state
    hand_on_nothing()
    # A model server that answers Edge's looks is found, however slow the machine; whoever tries others sets these.
    servers.PROBE_S = fleet.FIRST_LOOK_S = HANG_S


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that Edge runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection need look at it again. With the SDKs that would be 0.2 s a test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def what_outlives_a_test_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what a test with an Edge has left, and never look again at what is still there then.

    That is pytest's reports and what libraries make at first use: the collection after each test would go through all
    of it, 30 ms a test by the middle of a run. The first fixture of each test, so the last to end.
    """
    yield
    if "serve" in request.fixturenames:
        gc.collect()
        gc.freeze()


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
    # All of them, also if one fails: what still listens would keep the loop from closing.
    async with AsyncExitStack() as stops:
        while running:  # emptied, since pytest holds on to fixtures
            stops.push_async_callback(running.pop(0).stop)
    await no_tasks_left(before)
    web_app._cached_build_middleware.cache_clear()  # aiohttp's, which would keep every Edge of the run
    gc.collect()  # an unclosed socket or transport warns now, and warnings are errors


@pytest.fixture(scope="session")
def model() -> Path:
    """The real model's file; fetched on the first run ever. A developer may do without, but CI has no excuse."""
    try:
        LlamaServer.need()
        return model_path(lambda _done, _total: None)
    except Unavailable as error:
        message = f"REAL MODEL TESTS DID NOT RUN: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
