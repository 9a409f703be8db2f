"""Edge under a real systemd: told, watched, restarted, drained."""

import pytest
from support.booted import Machine, until
from support.hanging import HANG_S
from support.within import CONFIG, KEY, Client, drop_in, install

WORDS = " ".join(f"word{n}" for n in range(30))  # at the pace that is configured: three seconds


def restarts(edge: Machine) -> int:
    return int(edge.show("NRestarts"))


def test_it_is_started_once_it_serves_and_says_how_it_goes(edge: Machine) -> None:
    assert edge.show("SubState") == "running"
    assert edge.show("StatusText") == "0 streams; upstreams: sim up"
    client = Client(edge, KEY, text=WORDS)
    until("a status with the stream", lambda: edge.show("StatusText") == "1 stream; upstreams: sim up")
    assert "data: [DONE]" in client.ended()
    until("a status without it", lambda: edge.show("StatusText") == "0 streams; upstreams: sim up")
    said = edge.edge("service", "status")
    assert "edge.service  active (running), starts at boot" in said
    assert "0 streams; upstreams: sim up" in said
    assert "127.0.0.1:11435" in said


def test_a_hung_loop_is_killed_and_started_again_and_the_journal_says_where_it_hung(edge: Machine) -> None:
    drop_in(edge, "impatient", "[Service]\nWatchdogSec=1\n")
    edge.run("systemctl", "restart", "edge.service")
    before = restarts(edge)
    edge.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "edge.service")
    until("a restart", lambda: restarts(edge) == before + 1 and edge.show("ActiveState") == "active")
    assert "Watchdog timeout" in edge.journal()
    assert "Fatal Python error: Aborted" in edge.journal()
    assert Client(edge, KEY).ended()[1] == "200"
    edge.run("rm", "/etc/systemd/system/edge.service.d/impatient.conf")
    edge.run("systemctl", "daemon-reload")
    edge.run("systemctl", "restart", "edge.service")


def test_who_connects_after_it_was_killed_waits_and_is_answered(edge: Machine) -> None:
    before, killed = restarts(edge), edge.show("MainPID")
    edge.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "edge.service")
    until("its end", lambda: edge.show("MainPID") != killed)
    lines = Client(edge, KEY).ended()
    assert (lines[1], lines[-1]) == ("200", "end")
    assert "data: [DONE]" in lines
    assert restarts(edge) == before + 1


def test_a_restart_lets_streams_finish_and_who_connects_meanwhile_is_answered_after(edge: Machine) -> None:
    old = edge.show("MainPID")
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    restart = edge.start("systemctl", "restart", "edge.service")
    until("the drain", lambda: edge.show("StatusText") == "draining: 1 stream left")
    waiting = Client(edge, KEY)
    assert edge.show("MainPID") == old
    lines = running.ended()
    assert "word29" in "".join(lines)
    assert "data: [DONE]" in lines
    assert "data: [DONE]" in waiting.ended()
    restart.communicate(timeout=HANG_S)
    assert restart.returncode == 0
    assert edge.show("MainPID") != old


def test_a_drain_longer_than_the_unit_allows_is_allowed(edge: Machine) -> None:
    drop_in(edge, "short", "[Service]\nTimeoutStopSec=1\n")
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    edge.run("systemctl", "restart", "edge.service")
    assert "data: [DONE]" in running.ended()
    edge.run("rm", "/etc/systemd/system/edge.service.d/short.conf")
    edge.run("systemctl", "daemon-reload")


def test_a_crash_loop_fails_neither_the_service_nor_the_socket_for_good(edge: Machine) -> None:
    edge.write("/etc/edge/edge.toml", "[server]\nlisten = 1\n")
    edge.run("systemctl", "restart", "edge.service", status=1)
    before = restarts(edge)
    until("more restarts than a start limit allows", lambda: restarts(edge) > before + 6)
    assert "server.listen" in edge.journal()
    assert edge.show("ActiveState", "edge.socket") == "active"
    waiting = Client(edge, KEY)
    waiting.until("connecting")
    edge.write("/etc/edge/edge.toml", CONFIG)
    assert waiting.ended()[1] == "200"


def test_a_credential_reaches_edge_and_nobody_else(edge: Machine) -> None:
    assert Client(edge, KEY, stream=False).ended()[1] == "200"
    assert Client(edge, "another-key", stream=False).ended()[1] == "401"
    pid = edge.show("MainPID")
    assert KEY not in edge.run("cat", f"/proc/{pid}/environ", f"/proc/{pid}/cmdline").replace("\0", "\n")
    assert KEY not in edge.journal()


@pytest.mark.parametrize("unit", ["edge.service", "edge.socket"])
def test_systemd_itself_finds_nothing_to_mend(edge: Machine, unit: str) -> None:
    assert edge.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}") == ""


def test_uninstalled_it_is_gone_and_installed_again_it_is_back(edge: Machine) -> None:
    said = edge.edge("service", "uninstall")
    assert "removed /etc/systemd/system/edge.socket" in said
    assert edge.edge("service", "status", status=3) == "edge.service  not installed: edge service install\n"
    assert edge.run("ls", "/etc/systemd/system/sockets.target.wants", status=None).find("edge") < 0
    assert edge.run("cat", "/etc/edge/credentials/key") == KEY
    install(edge)
    assert Client(edge, KEY).ended()[1] == "200"


def test_only_root_may_install_but_anybody_may_look(edge: Machine) -> None:
    nobody = ("setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-m", "edge", "service")
    said = edge.run(*nobody, "install", status=1)
    assert said == "edge service: needs root to change system units: sudo, or --dry-run to see them\n"
    assert "ExecStart=/usr/bin/python3 -P -m edge serve" in edge.run(*nobody, "install", "--dry-run")
    assert "active (running)" in edge.run(*nobody, "status")


def test_a_python_that_the_service_could_not_see_is_refused(edge: Machine) -> None:
    edge.run("mkdir", "-p", "/home/somebody")
    edge.run("ln", "-sf", "/usr/bin/python3", "/home/somebody/python3")
    said = edge.run("/home/somebody/python3", "-m", "edge", "service", "install", status=1)
    assert "home directories" in said
    assert "/home/somebody/python3" in said
    assert "somebody" not in edge.run("cat", "/etc/systemd/system/edge.service")


@pytest.mark.parametrize("server", ["ollama.service", "vllm.service"])
def test_at_a_shutdown_it_drains_before_the_model_server_stops(edge: Machine, server: str) -> None:
    edge.write(
        f"/etc/systemd/system/{server}", "[Unit]\nPartOf=edge.socket\n[Service]\nExecStart=/bin/sleep infinity\n"
    )
    edge.run("systemctl", "daemon-reload")
    edge.run("systemctl", "start", server)
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    stop = edge.start("systemctl", "stop", "edge.socket")  # all three in one transaction, as a shutdown is
    until("the drain", lambda: edge.show("StatusText") == "draining: 1 stream left")
    assert edge.show("ActiveState", server) == "active"
    assert "data: [DONE]" in running.ended()
    stop.communicate(timeout=HANG_S)
    assert edge.show("ActiveState", server) == "inactive"
    edge.run("systemctl", "start", "edge.socket", "edge.service")
