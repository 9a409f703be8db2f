"""Runs an image as a container engine would: process 1 of its own namespace, on a root that cannot be written.

In: an image's files and configuration. Out: the running container, and commands in it. Must not: leave it running.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cli import Done, Serving
from support.hanging import hang_limit

# The mounts are in a namespace of the container's own, and end with it. What is mounted below the root stays writable.
_ENTER = """
mount --bind "$1" "$1"
mount --bind "$2" "$1$3"
mount --rbind /dev "$1/dev"
mount -o remount,bind,ro "$1"
root=$1
shift 3
exec unshare --pid --fork --root "$root" --mount-proc -- "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image's files, and what its configuration says."""

    root: Path
    config: Mapping[str, Any]

    def command(self, *args: str, **variables: str) -> list[str]:
        """A program as the configuration wants it: its variables, folder and user, and no privileges."""
        environment = [*self.config["Env"], *(f"{name}={value}" for name, value in variables.items())]
        user, _, group = self.config["User"].partition(":")
        who = ["--reuid", user, "--regid", group, "--clear-groups"]
        rights = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        folder = f"--chdir={self.config['WorkingDir']}"
        return ["env", "--ignore-environment", folder, *environment, "setpriv", *who, *rights, "--", *args]


class Container(Serving):
    """A running container, whose process 1 is ``edge serve``."""

    def __init__(self, process: asyncio.subprocess.Process, image: Image, variables: Mapping[str, str]) -> None:
        super().__init__(process)
        self._image = image
        self._variables = variables

    @property
    def first(self) -> int:
        """Process 1, as this machine counts; there is one once it has logged a line."""
        return _children(self.pid)[0]

    def signal(self, number: int) -> None:
        """To process 1, as an engine does it."""
        os.kill(self.first, number)

    async def run(self, *args: str) -> Done:
        """Run a command in it, beside process 1."""
        inside = ["nsenter", "--target", str(self.first), "--mount", "--pid", "--root"]
        return await _run([*inside, *self._image.command(*args, **self._variables)])


@asynccontextmanager
async def started(image: Image, state: Path, *args: str, **variables: str) -> AsyncIterator[Container]:
    """Start it, with the state folder as its volume, and wait until it listens."""
    process = await asyncio.create_subprocess_exec(
        *_container(image, state, *args, **variables), stderr=asyncio.subprocess.PIPE
    )
    try:
        container = Container(process, image, variables)
        container.url = (await container.line("listening"))["addresses"][0]
        yield container
    finally:
        await _end(process)


async def ended(image: Image, state: Path, *args: str, **variables: str) -> Done:
    """Start it, and wait for its end."""
    return await _run(_container(image, state, *args, **variables))


def _container(image: Image, state: Path, *args: str, **variables: str) -> list[str]:
    (volume,) = image.config["Volumes"]
    command = image.command(*image.config["Entrypoint"], *(args or image.config["Cmd"]), **variables)
    return ["unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(image.root), str(state), volume, *command]


async def _run(argv: list[str]) -> Done:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with hang_limit():
            out, err = await process.communicate()
    finally:
        await _end(process)
    return Done(process.returncode or 0, out.decode(), err.decode())


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what the program has started: with process 1 the kernel ends all of a namespace, and the program follows."""
    if process.returncode is None:
        for pid in [*_children(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.communicate()  # until all have closed its pipes


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
