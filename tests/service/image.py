"""Builds the container image without a container engine: buildah, over a base that mmdebstrap makes.

In: the Dockerfile as it is. Out: the image's size, its configuration and its files. Must not: need anything in the
Dockerfile that is there for this alone, or hide why a machine cannot do it.
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from support.debian import Absent, need

REPOSITORY = Path(__file__).parents[2]
BASE = "docker.io/library/python:3.13-slim"  # what the Dockerfile names; here it holds Debian's own Python 3.13
TAG = "localhost/edge-relay:test"
_BASE_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
_TOOLS = ("buildah", "mmdebstrap", "unshare", "nsenter")
_WITHIN_S = 400.0
LOCKED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
# How this machine reaches a package index is this machine's business, so it is mounted, not built in.
_MACHINE = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


class Failed(Exception):
    """A program ended in failure; the text says which, and what it said last."""


class Buildah:
    """An image store of our own, in the user's cache, where the base stays."""

    def __init__(self, scratch: Path) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge" / "service" / "image"
        cache.mkdir(parents=True, exist_ok=True)
        self.cache = cache
        self._scratch = scratch
        self._store = ["--root", str(cache / "store"), "--runroot", str(scratch / "run"), "--storage-driver", "vfs"]

    def __call__(self, command: str, *args: str) -> str:
        """Run one of its commands."""
        return run(["buildah", *self._store, command, *args])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One user of the store at a time: they share the tags. What nobody names any more is thrown away."""
        with (self.cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self("rm", "--all")
            self("rmi", "--prune")
            yield

    def base(self) -> None:
        """Have the base, under the name of the real one."""
        if BASE in self("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        context = self._scratch / "base"
        context.mkdir()
        packages = f"--include={_BASE_PACKAGES}"
        run(["mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", str(context / "base.tar")])
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        self.build(context, BASE)
        shutil.rmtree(context)

    def build(self, context: Path, tag: str) -> None:
        """Build what the folder's Dockerfile says. Docker's own format, for only that has health checks."""
        mounts = [f"--volume={path}:{path}:ro" for path in _MACHINE if Path(path).is_file()]
        how = ["--isolation", "chroot", "--pull-never", "--format", "docker", *mounts]
        self("build", *how, "--tag", tag, str(context))

    def fetch_locked(self) -> None:
        """Fetch what the locks name, in a container from the base: what any build here needs, and nothing else.

        Raises:
            Failed: This machine runs no program in an image, or no package index serves them.
        """
        text = "".join((REPOSITORY / name).read_text() for name in ("requirements.lock", "requirements-build.lock"))
        names = " ".join("==".join(found) for found in LOCKED.findall(text))
        context = self._scratch / "fetch"
        context.mkdir()
        fetch = "python3 -m pip download --quiet --no-deps --only-binary :all: --dest /tmp"
        (context / "Dockerfile").write_text(f"FROM {BASE}\nRUN {fetch} {names}\n")
        self.build(context, f"{TAG}-fetch")

    def layers(self, tag: str) -> list[int]:
        """The bytes of each layer, without compression."""
        manifest = orjson.loads(orjson.loads(self("inspect", "--type", "image", tag))["Manifest"])
        assert all(layer["mediaType"].endswith(".tar") for layer in manifest["layers"])
        return [layer["size"] for layer in manifest["layers"]]

    def config(self, tag: str) -> dict[str, Any]:
        """What a container engine goes by."""
        return dict(orjson.loads(self("inspect", "--type", "image", tag))["Docker"]["config"])

    @contextmanager
    def files(self, tag: str) -> Iterator[Path]:
        """An image's files, as the root of a container."""
        container = self("from", "--pull-never", tag).strip()
        try:
            yield Path(self("mount", container).strip())
        finally:
            self("rm", container)


def need_tools() -> None:
    """Return if an image can be built and run here; what Debian has is installed.

    Raises:
        Failed: It cannot.
    """
    if os.geteuid() != 0:
        raise Failed("building and running an image needs root")
    try:
        need(*_TOOLS)
    except Absent as error:
        raise Failed(str(error)) from None


def run(argv: Sequence[str]) -> str:
    """Run a program to its end.

    Raises:
        Failed: It fails.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_WITHIN_S, check=False)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise Failed(f"{' '.join(argv)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
