"""What the service may do: nothing that it does not need."""

import json
import re

from support.booted import Machine, until
from support.within import KEY, Client

# Runs in Edge's place, under the same unit. Tells the directories it can write to, and what it was not refused.
PROBE = """
import ctypes, json, mmap, os, socket
def tries(act):
    try:
        act()
    except (OSError, PermissionError):
        return False
    return True
writable = []
for place, names, _ in os.walk("/"):
    names[:] = [name for name in names if not os.path.islink(os.path.join(place, name))]
    if place == "/":
        names[:] = [name for name in names if name not in ("proc", "sys")]
    path = os.path.join(place, "probe")
    if tries(lambda: open(path, "w").close()):
        os.unlink(path)
        writable.append(place)
allowed = {
    "raw socket": tries(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "netlink": tries(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "code made at run time": tries(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "namespace": ctypes.CDLL(None).unshare(0x10000000) == 0,
    "kernel settings": tries(lambda: open("/proc/sys/kernel/hostname", "w")),
    "homes": tries(lambda: os.listdir("/root")),
    "others' processes": os.path.exists("/proc/1"),
    "nice": tries(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)),
}
print("PROBED " + json.dumps([writable, [name for name, is_allowed in allowed.items() if is_allowed]]))
"""


def test_nothing_but_the_state_can_be_written(edge: Machine) -> None:
    unit = edge.run("cat", "/etc/systemd/system/edge.service")
    unit = re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/usr/bin/python3 /opt/probe.py", unit)
    unit = re.sub(r"(?m)^(Restart|Requires|Type|Watchdog.*)=.*$", "", unit)
    edge.write("/opt/probe.py", PROBE)
    edge.write("/etc/systemd/system/probe.service", unit)
    edge.run("chmod", "755", "/opt")
    edge.run("systemctl", "daemon-reload")
    edge.run("systemctl", "start", "probe.service")
    until("the probe's end", lambda: edge.show("ActiveState", "probe.service") in ("inactive", "failed"))
    found = re.search(r"^PROBED (.*)$", edge.journal("probe.service"), re.MULTILINE)
    assert found, edge.journal("probe.service")
    writable, allowed = json.loads(found[1])
    assert allowed == []
    private = {"/tmp", "/var/tmp", "/dev/mqueue", "/dev/shm"}  # noqa: S108 - each is the service's own
    assert "/var/lib/private/edge" in writable
    assert set(writable) - private == {"/var/lib/private/edge"}


def test_it_has_no_privileges_and_serves_all_the_same(edge: Machine) -> None:
    status = edge.run("cat", f"/proc/{edge.show('MainPID')}/status")
    facts = dict(re.findall(r"(?m)^(\w+):\t(.*)$", status))
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert 0 not in map(int, facts["Uid"].split())
    # Large enough to be parsed by a process of its own, which the sandbox has to allow.
    assert Client(edge, KEY, model="lorem", times=1_000_000, stream=False).ended()[1] == "200"
