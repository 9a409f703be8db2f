"""The demo and its processes: a real model server, Edge in front of it, and nothing left behind by either."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.dispositions import PYTHONS_OWN, ignored_by, ignored_here, ignored_in, ignoring

from edge.cli.child import Child, Died, Unavailable
from edge.cli.llama_server import LlamaServer

WITHIN_S = 120  # a hung process fails the test; nothing is measured by it
DEMO = [sys.executable, "-m", "edge", "demo"]

# A parent that starts a child, tells its process id, and is then killed.
ORPHAN = """
import sys, time
from pathlib import Path
from edge.cli.child import Child
with Child("child", [sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1])) as child:
    print(child.pid, flush=True)
    time.sleep(600)
"""

DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    signal.pause()
"""


def ends(pid: int) -> bool:
    """Wait for a process that is not our child to end; its exit opens the descriptor for reading."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], WITHIN_S)[0])
    finally:
        os.close(handle)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait(child: Child) -> None:
    assert ends(child.pid)


def test_a_child_is_gone_after_the_block(tmp_path):
    with Child("child", python("import time; time.sleep(600)"), tmp_path / "log") as child:
        child.check()
        pid = child.pid
    assert gone(pid)
    child.stop()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.cli.child.STOP_S", 0.1)
    with Child("child", python(DEAF), tmp_path / "log") as child:
        while "deaf" not in child.said():
            child.check()
        pid = child.pid
    assert gone(pid)
    assert child.status() == -signal.SIGKILL


def test_a_child_that_died_is_told_with_its_last_words(tmp_path):
    with Child(
        "the thing", python("for n in range(99): print('line', n)\nraise SystemExit(3)"), tmp_path / "log"
    ) as child:
        wait(child)
        with pytest.raises(Died, match=r"the thing ended with status 3\. Its last words:\nline 69\n") as caught:
            child.check()
    assert str(caught.value).endswith("line 98")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path):
    command = [*python(ORPHAN), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:  # noqa: S603 - our own program
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert ends(pid)


@pytest.mark.real
def test_the_model_server_answers_once_ready_and_leaves_no_process(model, tmp_path):
    with LlamaServer(model, tmp_path / "log") as server:
        server.wait_ready()
        pid = server.pid
        for path in ("/health", "/slots", "/metrics", "/v1/models"):
            with urllib.request.urlopen(server.url + path) as answer:  # noqa: S310 - a server of our own
                assert answer.status == 200
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process ignores")
def test_a_child_begins_with_no_signal_ignored_whatever_its_parent_ignores(tmp_path):
    with ignored_here(), Child("child", [shutil.which("cat"), "/proc/self/status"], tmp_path / "log") as child:
        wait(child)
    assert ignored_in(child.said()) == set()


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_model_server_ends_on_a_signal_also_while_it_loads(model, tmp_path, number):
    with ignored_here(), LlamaServer(model, tmp_path / "log") as server:
        os.kill(server.pid, number)
        wait(server)


@pytest.mark.real
def test_the_model_server_ends_when_its_stdin_does(model):
    command = [sys.executable, "-m", "edge.cli.llama_server", str(model), "0"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as server:  # noqa: S603 - our own program
        assert server.stdin is not None
        assert server.stdout is not None
        assert re.fullmatch(rb"ready http://127\.0\.0\.1:\d+\n", server.stdout.readline())
        server.stdin.close()
        assert server.wait(WITHIN_S) == -signal.SIGTERM


@pytest.mark.real
@pytest.mark.usefixtures("model")  # for the extra
def test_a_file_that_is_no_model_is_told_with_the_servers_own_words(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"this is no model")
    with LlamaServer(tmp_path / "bad.gguf", tmp_path / "log") as server, pytest.raises(Died, match=r"bad\.gguf"):
        server.wait_ready()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(Unavailable, match=r"pip install 'edge-relay\[demo\]'"):
        LlamaServer.need()


@pytest.fixture
def taken():
    """A loopback port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture
def demo(model, tmp_path):
    """Start ``edge demo``; it and its children must be gone at the end."""
    started = []

    def start(*options: str, command: list[str] = DEMO) -> subprocess.Popen[str]:
        # Its own TMPDIR shows what it leaves there.
        env = {**os.environ, "TMPDIR": str(tmp_path), "EDGE_DEMO_MODEL": str(model)}
        process = subprocess.Popen(  # noqa: S603 - our own program
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    assert list(tmp_path.glob("edge-demo-*")) == []


def read_until(process: subprocess.Popen[str], sign: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if sign in line:
            return read
    pytest.fail(f"{sign!r} never came:\n{read}")


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.real
def test_the_demo_shows_how_to_call_it_and_streams_an_answer(demo):
    said, _ = demo("--once", "--port", "0").communicate(timeout=WITHIN_S)
    assert re.search(
        r"curl -N http://127\.0\.0\.1:\d+/v1/chat/completions -H 'Content-Type: application/json' -d '{", said
    )
    assert re.search(r'OpenAI\(base_url="http://127\.0\.0\.1:\d+/v1"', said)
    assert re.search(r"\n[1-9]\d* tokens, the first after \d+ ms, then \d+ tokens/s\n$", said)


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_stays_up_until_it_is_told_to_end_and_leaves_nothing(demo, number):
    process = demo("--port", "0")
    read_until(process, "Ctrl-C ends the demo")
    both = children(process)
    process.send_signal(number)
    assert process.wait(WITHIN_S) == 0
    assert len(both) == 2
    assert all(gone(pid) for pid in both)


@pytest.mark.real
def test_the_demo_ends_and_its_processes_hear_every_signal_however_it_was_started(demo):
    process = demo("--port", "0", command=ignoring(DEMO))
    read_until(process, "Ctrl-C ends the demo")
    both = children(process)
    assert [ignored_by(pid) - PYTHONS_OWN for pid in both] == [set(), set()]
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 0
    assert all(gone(pid) for pid in both)


@pytest.mark.real
@pytest.mark.parametrize(("which", "name"), [(0, "the model server"), (1, "Edge")])
def test_the_demo_says_which_process_died_and_ends_the_other(demo, which, name):
    process = demo("--port", "0")
    read_until(process, "Ctrl-C ends the demo")
    both = children(process)
    os.kill(both[which], signal.SIGKILL)
    said, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert f"edge demo: {name} ended by signal 9" in said
    assert all(gone(pid) for pid in both)


@pytest.mark.real
def test_a_port_that_was_asked_for_and_is_taken_is_an_error(demo, taken):
    process = demo("--port", str(taken))
    said, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert f"edge demo: cannot listen on 127.0.0.1:{taken}: Address already in use" in said


@pytest.mark.real
def test_the_usual_port_gives_way_when_it_is_taken(demo):
    try:
        other = socket.create_server(("127.0.0.1", 11435))
    except OSError:
        other = socket.socket()  # something else has it already, which serves as well
    with other:
        said, _ = demo("--once").communicate(timeout=WITHIN_S)
    assert "Port 11435 is taken; Edge takes a free one." in said
    assert re.search(r"\d+ tokens, the first after", said)
