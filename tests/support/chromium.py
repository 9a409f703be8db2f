"""A real browser without a window: Debian's Chromium, or the one that is there, opened and closed page by page.

In: addresses of pages. Out: pages that run, and what they report. Must not: drive a page, which is on its own; leave a
process or a file behind; touch a browser that it has not started.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from support.hanging import HANG_S, hang_limit

START_S = REPORT_S = HANG_S
_STOP_S = 5.0
_INSTALL_S = 600
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing of its own over the network, and timers as in a page that somebody looks at.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--disable-extensions", "--no-proxy-server", "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding", "--remote-debugging-port=0",
)  # fmt: skip
_PAGES = Path(__file__).parents[1] / "service" / "browser" / "pages"


class Unavailable(Exception):
    """No browser can be had here; the text says why."""


def need_chromium() -> str:
    """The program; where it is not there, and may be installed, it is.

    Raises:
        Unavailable: See there.
    """
    for again in (False, True):
        for name in _NAMES:
            if found := shutil.which(name):
                return found
        if not again:
            _install()
    raise Unavailable("apt-get has installed chromium, but there is no such program")


def _install() -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable(f"none of {', '.join(_NAMES)} is installed, and only root with apt-get can (chromium)")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-o", "DPkg::Lock::Timeout=120")
    for argv in (
        ["apt-get", *wait, "update", "-qq"],
        ["apt-get", *wait, "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False, env=env)  # noqa: S603 - ours
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{' '.join(argv)}: {error}") from error
        if done.returncode:
            raise Unavailable(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-500:]}")


@contextmanager
def chromium(folder: Path) -> Iterator[int]:
    """A running browser, whose files are all in ``folder``; gives the port on which it is asked for pages.

    Raises:
        Unavailable: it cannot be had, or does not start.
    """
    log, said = folder / "log", folder / "data" / "DevToolsActivePort"
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LANG": "C.UTF-8"}
    argv = [need_chromium(), *_FLAGS, f"--user-data-dir={said.parent}", "about:blank"]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=env, start_new_session=True)  # noqa: S603 - ours
    try:
        until = time.monotonic() + START_S
        while not (said.exists() and "\n" in (text := said.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"{argv[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield int(text.split("\n")[0])
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group, which is all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    until = time.monotonic() + _STOP_S
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)


class Pages:
    """A server of the pages in ``tests/service/browser/pages``, and where they report to. ``url`` is its origin."""

    def __init__(self) -> None:
        self.url = ""
        self._reports: asyncio.Queue[Any] = asyncio.Queue(100)

    async def report(self) -> Any:
        """The next thing that a page says."""
        async with hang_limit():
            told = await self._reports.get()
        assert "bug" not in told, told
        return told

    async def take(self, request: web.Request) -> web.Response:
        self._reports.put_nowait(await request.json())
        return web.Response(status=204)


@asynccontextmanager
async def pages() -> AsyncIterator[Pages]:
    """Serve them."""
    served = Pages()
    app = web.Application()
    app.router.add_post("/report", served.take)
    app.router.add_static("/", _PAGES)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        served.url = site.name
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(browser: int, url: str) -> AsyncIterator[None]:
    """A page in the browser on this port, closed at the end."""
    base = f"http://127.0.0.1:{browser}/json"
    async with aiohttp.ClientSession() as session:
        async with session.put(URL(f"{base}/new?{quote(url, safe='')}", encoded=True)) as answer:
            page = (await answer.json(content_type=None))["id"]
        try:
            yield
        finally:
            async with session.get(f"{base}/close/{page}") as answer:
                assert answer.status == 200
