"""Edge under a real systemd, given other settings and another process while it runs."""

import pytest
from support.booted import Machine, until
from support.within import CONFIG, KEY, Client, drop_in

WORDS = " ".join(f"word{n}" for n in range(30))  # at the pace that is configured: three seconds


def test_a_reload_takes_what_is_right_and_refuses_what_is_wrong_under_running_streams(edge: Machine) -> None:
    pid = edge.show("MainPID")
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    edge.write("/etc/edge/edge.toml", CONFIG.replace('name = "sim"', 'name = "other"'))
    edge.run("systemctl", "reload", "edge.service")
    until("the other upstream", lambda: "other up" in edge.show("StatusText"))
    edge.write("/etc/edge/edge.toml", "[server]\nlisten = 1\n")
    edge.run("systemctl", "reload", "edge.service")
    until("the refusal", lambda: "reload refused" in edge.journal())
    assert edge.show("ActiveState") == "active"
    assert Client(edge, KEY).ended()[1] == "200"
    assert "data: [DONE]" in running.ended()
    assert edge.show("MainPID") == pid
    edge.write("/etc/edge/edge.toml", CONFIG)
    edge.run("systemctl", "reload", "edge.service")
    until("the upstream of before", lambda: "sim up" in edge.show("StatusText"))


def test_an_upgrade_is_followed_by_systemd_and_cuts_no_stream(edge: Machine) -> None:
    pid, restarts = edge.show("MainPID"), edge.show("NRestarts")
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    edge.run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "edge.service")
    until("another main process", lambda: edge.show("MainPID") not in (pid, "0"))
    assert Client(edge, KEY).ended()[1] == "200"
    lines = running.ended()
    assert "word29" in "".join(lines)
    assert "data: [DONE]" in lines
    until("a status of the new process", lambda: "sim up" in edge.show("StatusText"))
    assert (edge.show("ActiveState"), edge.show("NRestarts")) == ("active", restarts)


def test_the_new_process_keeps_the_watchdog_content(edge: Machine) -> None:
    drop_in(edge, "impatient", "[Service]\nWatchdogSec=1\n")
    edge.run("systemctl", "restart", "edge.service")
    pid, restarts = edge.show("MainPID"), edge.show("NRestarts")
    edge.run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "edge.service")
    until("another main process", lambda: edge.show("MainPID") not in (pid, "0"))
    assert "data: [DONE]" in Client(edge, KEY, text=WORDS).ended()  # three times as long as the watchdog waits
    assert edge.show("NRestarts") == restarts
    edge.run("rm", "/etc/systemd/system/edge.service.d/impatient.conf")
    edge.run("systemctl", "daemon-reload")
    edge.run("systemctl", "restart", "edge.service")


@pytest.mark.parametrize("verb", ["restart", "stop"])
def test_a_stop_lets_the_process_that_was_replaced_finish_its_streams_too(edge: Machine, verb: str) -> None:
    pid = edge.show("MainPID")
    running = Client(edge, KEY, text=WORDS)
    running.until("word1")
    edge.run("systemctl", "kill", "--kill-whom=main", "--signal=USR2", "edge.service")
    until("another main process", lambda: edge.show("MainPID") not in (pid, "0"))
    edge.run("systemctl", verb, "edge.service")  # the new one has nothing to finish, and ends at once
    lines = running.ended()
    assert "word29" in "".join(lines)
    assert "data: [DONE]" in lines
    edge.run("systemctl", "start", "edge.service")
    assert Client(edge, KEY).ended()[1] == "200"


@pytest.mark.parametrize("command", ["reload", "upgrade"])
def test_the_commands_find_the_service_and_say_if_it_does_not_run(edge: Machine, command: str) -> None:
    pid = edge.show("MainPID")
    said = edge.edge(command)
    assert said.startswith(f"process {pid}: {command} done\n")
    if command == "upgrade":
        until("another main process", lambda: edge.show("MainPID") not in (pid, "0"))
        assert f"process {edge.show('MainPID')} serves now" in said
    nobody = ("setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-m", "edge", command)
    assert edge.run(*nobody, status=1).endswith("cannot be signalled: Operation not permitted; root can, by sudo\n")
    edge.run("systemctl", "stop", "edge.socket", "edge.service")
    said = edge.edge(command, status=2)
    assert said.startswith("edge: edge.service is inactive (dead): there is no process to ask.")
    edge.run("systemctl", "start", "edge.socket", "edge.service")
