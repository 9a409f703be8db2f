"""``edge service``: the unit files that it writes, prints and removes, below a root of the test's own."""

import sys
from pathlib import Path

import pytest
from support.cli import run

UNITS = Path("etc/systemd/system")
FILES = {
    "edge.service",
    "edge.socket",
    "edge.service.d/after-ollama.conf",
    "edge.service.d/after-vllm.conf",
}


def units_in(root: Path) -> set[str]:
    return {str(path.relative_to(root / UNITS)) for path in (root / UNITS).rglob("*") if path.is_file()}


async def test_install_writes_the_units_for_this_python_and_a_first_configuration(tmp_path: Path) -> None:
    done = await run("service", "install", "--root", str(tmp_path))
    assert done.status == 0
    assert units_in(tmp_path) == FILES
    service = (tmp_path / UNITS / "edge.service").read_text()
    assert f"\nExecStart={sys.executable} -P -m edge serve --config /etc/edge/edge.toml\n" in service
    assert f"wrote {tmp_path / UNITS / 'edge.service'}" in done.out
    assert (tmp_path / "etc/edge/credentials").stat().st_mode & 0o777 == 0o700
    checked = await run("check", "--config", str(tmp_path / "etc/edge/edge.toml"), EDGE_SERVER_LISTEN="")
    assert checked.status != 2, checked.err  # 1 says that no model server is here; 2, that the file is wrong


async def test_a_second_install_mends_the_units_and_keeps_the_configuration(tmp_path: Path) -> None:
    await run("service", "install", "--root", str(tmp_path))
    (tmp_path / "etc/edge/edge.toml").write_text("# mine\n")
    (tmp_path / UNITS / "edge.service").write_text("# old\n")
    done = await run("service", "install", "--root", str(tmp_path))
    assert done.status == 0
    assert (tmp_path / "etc/edge/edge.toml").read_text() == "# mine\n"
    assert "Type=notify" in (tmp_path / UNITS / "edge.service").read_text()


async def test_a_dry_run_prints_what_would_be_written_and_writes_nothing(tmp_path: Path) -> None:
    done = await run("service", "install", "--dry-run", "--root", str(tmp_path))
    assert done.status == 0
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs now
    for name in FILES:
        assert f"# --- {tmp_path / UNITS / name}\n" in done.out
    assert f"ExecStart={sys.executable} -P -m edge serve" in done.out
    assert 'listen = ["systemd"]' in done.out


async def test_uninstall_takes_away_what_install_brought_and_nothing_else(tmp_path: Path) -> None:
    await run("service", "install", "--root", str(tmp_path))
    mine = tmp_path / UNITS / "edge.service.d/mine.conf"
    mine.write_text("[Service]\n")
    asked = await run("service", "uninstall", "--dry-run", "--root", str(tmp_path))
    assert f"would remove {tmp_path / UNITS / 'edge.socket'}" in asked.out
    assert units_in(tmp_path) == FILES | {"edge.service.d/mine.conf"}
    done = await run("service", "uninstall", "--root", str(tmp_path))
    assert done.status == 0
    assert units_in(tmp_path) == {"edge.service.d/mine.conf"}
    assert (tmp_path / "etc/edge/edge.toml").exists()
    again = await run("service", "uninstall", "--root", str(tmp_path))
    assert (again.status, again.out) == (0, "there is nothing to remove\n")


async def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a directory has to be")
    done = await run("service", "install", "--root", str(tmp_path))
    assert done.status == 1
    assert "Traceback" not in done.err
    assert f"{tmp_path}/etc" in done.err_lines[-1]


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="SYSTEMD RUNS HERE: its absence cannot be seen")
@pytest.mark.parametrize("command", ["install", "status"])
async def test_where_there_is_no_systemd_it_says_so(command: str) -> None:
    done = await run("service", command)
    assert done.status == 1
    assert "Traceback" not in done.err
    assert any(word in done.err for word in ("systemd does not run", "home directories", "needs root"))
