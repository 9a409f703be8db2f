"""Unix sockets: who may connect, and when."""

import asyncio
import grp
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from support.raw import CHAT, chat_body
from support.running import Serve
from support.tls import make_certificate
from support.unix import UnixClient

NOBODY = 65534
CONNECT = """
import os, socket, sys
path, user, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(group)
os.setuid(user)
socket.socket(socket.AF_UNIX).connect(path)
"""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="OTHER USERS WERE NOT TRIED ON UNIX SOCKETS: this is not root")


def another_group() -> int:
    """A group that this process may give files to, if possible not its own."""
    if os.getuid() == 0:
        return next(group.gr_gid for group in grp.getgrall() if group.gr_gid != os.getgid())
    return next((group for group in os.getgroups() if group != os.getgid()), os.getgid())


async def connects(path: Path, user: int, group: int) -> bool:
    """Whether a process of that user and group gets in."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", CONNECT, str(path), str(user), str(group)), stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 0 or b"PermissionError" in err, err
    return process.returncode == 0


@pytest.mark.parametrize(("mode", "bits"), [(None, 0o660), ("0600", 0o600), ("666", 0o666)])
async def test_the_mode_is_the_one_that_is_set(serve: Serve, tmp_path: Path, mode: str | None, bits: int) -> None:
    path = tmp_path / "edge.sock"
    before = os.umask(0o027)
    try:
        await serve(server={"listen": [f"unix:{path}"], **({"unix_mode": mode} if mode else {})})
        assert os.umask(0o027) == 0o027  # what else Edge makes has the permissions that it always had
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == bits
    async with UnixClient(path) as client:
        await client.get("/health")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("by_name", [True, False])
async def test_the_group_is_the_one_that_is_set(serve: Serve, tmp_path: Path, *, by_name: bool) -> None:
    group, path = another_group(), tmp_path / "edge.sock"
    text = grp.getgrgid(group).gr_name if by_name else str(group)
    await serve(server={"listen": [f"unix:{path}"], "unix_group": text})
    assert path.stat().st_gid == group


@as_root
async def test_the_group_gets_in_and_others_do_not(serve: Serve) -> None:
    group = another_group()
    with tempfile.TemporaryDirectory() as folder:  # pytest's are for its own user only
        path = Path(folder) / "edge.sock"
        os.chmod(folder, 0o711)  # noqa: PTH101, S103 - as a folder of sockets is
        await serve(server={"listen": [f"unix:{path}"], "unix_group": str(group)})
        assert await connects(path, NOBODY, group)
        assert not await connects(path, NOBODY, NOBODY)


async def test_a_group_that_cannot_be_given_ends_the_start_and_leaves_no_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    with pytest.raises(OSError, match=f"cannot listen on unix:{path}: there is no such group as server.unix_group"):
        await serve(server={"listen": [f"unix:{path}"], "unix_group": "nobody-has-this-group"})
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs now


async def test_it_stays_plain_beside_tls(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    edge = await serve(server={"listen": ["127.0.0.1:0", f"unix:{path}"], **make_certificate(tmp_path)})
    assert edge.edge.listener.addresses[1] == f"unix:{path}"
    async with UnixClient(path) as client:
        await client.post(CHAT, chat_body(stream=False))
        assert (await client.answer()).status == 200
