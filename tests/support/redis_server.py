"""A real Redis server on a loopback port, and all that can befall one.

In: a directory. Out: a server that a test can kill, suspend, fill, slow down and start again. Must not: use a server
that is there already, or hide why one cannot be had.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.store.ports import StoreDown
from edge.store.redis.link import RedisLink
from support.hanging import HANG_S, hang_limit

START_S = HANG_S
_PACKAGE = "redis-server"  # Debian's


def _apt_get(*words: str) -> None:
    subprocess.run(["apt-get", "-qq", *words], check=True, capture_output=True, timeout=300)  # noqa: S603, S607 - fixed


def binary() -> str:
    """The server's program, installed if that is allowed here; else the test is skipped."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with contextlib.suppress(subprocess.SubprocessError):
            _apt_get("update")
            _apt_get("install", "-y", "--no-install-recommends", _PACKAGE)
            found = shutil.which("redis-server")
    if found is None:
        pytest.skip(f"REDIS TESTS DID NOT RUN: no redis-server here (apt-get install {_PACKAGE})")
    return found


class RedisServer:
    """One server. What it wrote to disk is in ``home``."""

    def __init__(self, home: Path, *options: str, password: str = "") -> None:
        self.home = home
        self.password = password
        self.port = free_port()
        self.options = options
        self._program = binary()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it on its port, with the data that it has; return when it answers."""
        words = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.home)]
        words += ["--save", "", "--daemonize", "no", "--logfile", "redis.log", *self.options]
        if self.password:
            words += ["--requirepass", self.password]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError, ConnectionError):
                if self.say("PING").startswith(b"+PONG"):
                    return
            assert self._process.poll() is None, (self.home / "redis.log").read_text()
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            self.kill()

    def suspend(self) -> None:
        """It still accepts connections, but says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo ``suspend``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def save(self) -> None:
        """Write all to disk: what a later ``start`` finds."""
        assert self.say("SAVE").startswith(b"+OK")

    def lose_data(self) -> None:
        """What a later ``start`` finds is nothing."""
        (self.home / "dump.rdb").unlink(missing_ok=True)

    def fill(self) -> None:
        """It has no memory left for anything that is written."""
        self._set("maxmemory-policy", "noeviction")
        self._set("maxmemory", "1mb")
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG_S) as sock:
            self._login(sock)
            for number in range(200):
                sock.sendall(_packed("SET", f"filler:{number}", "x" * 10_000))
                if sock.recv(1000).startswith(b"-OOM"):
                    return
        raise AssertionError("it does not get full")

    def empty(self) -> None:
        """Undo ``fill``."""
        self._set("maxmemory", "0")

    def pause(self, seconds: float) -> None:
        """It answers nobody for so long."""
        assert self.say("CLIENT", "PAUSE", str(int(seconds * 1000)), "ALL").startswith(b"+OK")

    def connections(self) -> int:
        """Of clients, without the one that asks."""
        return self.say("CLIENT", "LIST").count(b" addr=") - 1

    def all_keys(self) -> list[bytes]:
        """All of them."""
        return sorted(line for line in self.say("KEYS", "*").split(b"\r\n")[1:] if line and not line.startswith(b"$"))

    def say(self, *words: str) -> bytes:
        """One command on a connection of its own; the answer as it comes, up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG_S) as sock:
            self._login(sock)
            sock.sendall(_packed(*words))
            answer = sock.recv(65536)
            while answer.startswith(b"$") and b"\r\n" not in answer[1:]:
                answer += sock.recv(65536)
            return answer

    def _set(self, name: str, value: str) -> None:
        assert self.say("CONFIG", "SET", name, value).startswith(b"+OK")

    def _login(self, sock: socket.socket) -> None:
        if self.password:
            sock.sendall(_packed("AUTH", self.password))
            assert sock.recv(100).startswith(b"+OK")


def _packed(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server(home: Path, *options: str, **facts: Any) -> Iterator[RedisServer]:
    """A running one."""
    server = RedisServer(home, *options, **facts)
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def until(true: Any, within_s: float = HANG_S) -> None:
    """Wait for what another process does."""
    async with hang_limit(within_s):
        while not true():
            await asyncio.sleep(0.01)


async def vanish(link: RedisLink) -> None:
    """End a link as ``kill -9`` of its process would: without a word."""
    link._closed = True
    tasks = tuple(link._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    link._hang_up(StoreDown("it has vanished"))
    await asyncio.gather(*link._ends)
