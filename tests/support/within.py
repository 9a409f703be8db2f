"""What the tests of a booted machine share: Edge set up in it, and clients inside, where there is only Python."""

import subprocess
from typing import IO

from support.booted import PYTHONPATH, Machine
from support.hanging import HANG_S

KEY = "the-key-in-the-credential"
CONFIG = """
[server]
listen = ["systemd"]
[auth]
keys = ["credential:edge_key"]
[discovery]
enabled = false
[[upstream]]
name = "sim"
kind = "simulator"
pace_s = 0.1
"""

# Arguments: the key, the model, what is said, how many times over, whether it streams. Lines are printed as they come.
_CHAT = """
import http.client, json, sys
key, model, text, times, stream = sys.argv[1:]
body = {"model": model, "stream": stream == "True", "messages": [{"role": "user", "content": text * int(times)}]}
connection = http.client.HTTPConnection("127.0.0.1", 11435, timeout=60)
print("connecting", flush=True)
connection.request("POST", "/v1/chat/completions", json.dumps(body),
                   {"Authorization": "Bearer " + key, "Content-Type": "application/json"})
answer = connection.getresponse()
print(answer.status, flush=True)
for line in answer:
    print(line.decode().rstrip(), flush=True)
print("end", flush=True)
"""


def install(machine: Machine) -> None:
    """Install Edge by its own command, and start it."""
    machine.edge("service", "install")
    # The packages are bound into the container, not installed for its Python.
    drop_in(machine, "packages", f"[Service]\nEnvironment=PYTHONPATH={PYTHONPATH}\n")
    machine.write("/etc/edge/credentials/key", KEY, 0o600)
    machine.write("/etc/edge/edge.toml", CONFIG)
    machine.run("systemctl", "enable", "--now", "edge.socket", "edge.service")


def drop_in(machine: Machine, name: str, text: str) -> None:
    """Change the unit."""
    machine.write(f"/etc/systemd/system/edge.service.d/{name}.conf", text)
    machine.run("systemctl", "daemon-reload")


class Client:
    """One chat request, from inside."""

    def __init__(
        self, machine: Machine, key: str, *, model: str = "echo", text: str = "hi", times: int = 1, stream: bool = True
    ) -> None:
        self.process: subprocess.Popen[str] = machine.python(_CHAT, key, model, text, str(times), str(stream))
        self.lines: list[str] = []

    def until(self, mark: str) -> str:
        """Read until a line has this in it; that line."""
        for line in self._out:
            self.lines.append(line.rstrip())
            if mark in line:
                return line.rstrip()
        raise AssertionError(f"it ended before {mark!r}: {self.lines}")

    def ended(self) -> list[str]:
        """Read to the end; all lines."""
        self.lines += [line.rstrip() for line in self._out]
        self.process.communicate(timeout=HANG_S)
        assert self.process.returncode == 0, self.lines
        return self.lines

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout
