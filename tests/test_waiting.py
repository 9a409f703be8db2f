"""How tests wait: with a limit against hanging, and no clock that a busy machine could make run out."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hanging import HANG_S, hang_limit, steps_of, until, until_blocking

TESTS = Path(__file__).parent
# What is measured there, or waits for silence, has limits of its own; the last is where others have theirs from.
OWN_LIMITS = ("bench", "golden", "support/hanging.py")
# These wait until nothing has happened for so long, which no slow machine can make fail.
SILENCES = {
    ("fault/test_slow_reader.py", 0.2), ("fault/test_bodies.py", 0.05), ("fakes/test_model_server.py", 0.2),
    ("api/test_uploads_http.py", 0.4),
}  # fmt: skip
WAITING = {
    "timeout",
    "wait_for",
    "wait",
    "left",
    "until",
    "receive",
    "answer",
    "record",
    "reached",
    "ask",
    "communicate",
}
NAMES = {"timeout", "timeout_s", "within_s", "limit_s"}


def limits(tree: ast.AST) -> Iterator[tuple[float, int]]:
    """Numbers that are given as limits to what waits, and their lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in WAITING:
            continue
        given = [word.value for word in node.keywords if word.arg in NAMES]
        if name == "timeout":
            given += node.args
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, (int, float)):
                yield value.value, node.lineno


def test_no_wait_has_a_limit_that_a_busy_machine_could_reach() -> None:
    """A new one: use ``support.hanging``, which shows the stacks besides."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        where = str(path.relative_to(TESTS))
        if where.startswith(OWN_LIMITS):
            continue
        for limit, line in limits(ast.parse(path.read_text())):
            if limit < HANG_S and (where, limit) not in SILENCES:
                found.append(f"{where}:{line}: {limit} s")
    assert found == []


async def test_what_hangs_fails_and_shows_who_waits(capfd: pytest.CaptureFixture[str]) -> None:
    async def waits_for_ever() -> None:
        await until(lambda: False, 0.2)

    with pytest.raises(TimeoutError):
        await waits_for_ever()
    shown = capfd.readouterr().err
    assert "Current thread" in shown
    assert "waits_for_ever" in shown


async def test_what_ends_in_time_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async with hang_limit(0.2):
        pass
    until_blocking(lambda: True, 0)
    assert capfd.readouterr().err == ""


def test_what_hangs_where_no_loop_runs_fails_and_shows_it_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TimeoutError, match=r"not within 0\.05 s"):
        until_blocking(lambda: False, 0.05)
    assert "until_blocking" in capfd.readouterr().err


def test_work_is_counted_in_steps_that_no_machine_changes() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            pass

    few, many = steps_of(lambda: work(10)), steps_of(lambda: work(1000))
    assert few == steps_of(lambda: work(10))
    assert 50 < many / few < 110
