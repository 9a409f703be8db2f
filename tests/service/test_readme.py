"""The README's way to a service, on a machine that has only a model server: its very commands, typed one by one."""

import re
from collections.abc import Iterator

import orjson
import pytest
from service.image import REPOSITORY
from service.package import PIP, Built, done
from support.booted import CannotBoot, Machine, until

README = (REPOSITORY / "README.md").read_text()
WHEELS = "/srv/wheels"
# What the commands find here: no sudo, for the user is root, and no index, so that these wheels are what pip knows.
AS_A_USER = {"PYTHONPATH": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}

# Passes for an Ollama that has one model.
OLLAMA = """
import http.server, json
GET = {
    "/": b"Ollama is running",
    "/v1/models": b'{"data": [{"id": "tiny", "object": "model", "created": 1, "owned_by": "library"}]}',
    "/api/tags": b'{"models": [{"name": "tiny", "model": "tiny", "size": 9}]}',
    "/api/version": b'{"version": "0.13.0"}',
    "/api/ps": b'{"models": []}',
}
SAID = [{"message": {"role": "assistant", "content": word}, "done": False} for word in ("Hel", "lo")]
SAID += [{"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}]
LINE = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z"}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in GET else 404)
        self.end_headers()
        self.wfile.write(GET.get(self.path, b""))
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        for line in SAID:
            self.wfile.write(json.dumps(LINE | line).encode() + b"\\n")
http.server.ThreadingHTTPServer(("127.0.0.1", 11434), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def fresh(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine where nobody has installed Edge yet, beside an Ollama."""
    folder = tmp_path_factory.mktemp("fresh")
    # The last is for a Python before 3.11.3, such as the machine's.
    done(built.python, *PIP, "download", "--dest", folder / "wheels", built.wheel, "async-timeout")
    try:
        machine = Machine(folder / "console")
        with machine:
            machine.copy(folder / "wheels", WHEELS)
            machine.write("/srv/ollama.py", OLLAMA)
            machine.write(
                "/etc/systemd/system/ollama.service", "[Service]\nExecStart=/usr/bin/python3 /srv/ollama.py\n"
            )
            machine.run("systemctl", "start", "ollama.service")
            yield machine
    except CannotBoot as error:
        pytest.skip(f"THE README'S COMMANDS WERE NOT TYPED, FOR NO SYSTEMD WAS BOOTED: {error}")


def typed(machine: Machine, line: str) -> str:
    """What a line says; it has to end well."""
    return machine.run("/bin/sh", "-c", f'sudo() {{ "$@"; }}; {line}', **AS_A_USER)


def test_five_commands_lead_to_a_service_beside_ollama_and_one_more_to_the_next_version(fresh: Machine) -> None:
    found = re.search(r"### systemd, beside Ollama\n\n```sh\n(.*?)```", README, re.DOTALL)
    assert found
    *commands, ask = found[1].splitlines()
    assert len(commands) == 4
    for command in commands:
        typed(fresh, command)
    assert [model["id"] for model in orjson.loads(typed(fresh, ask))["data"]] == ["tiny"]
    body = orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}).decode()
    chat = f"curl -sS localhost:11435/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    assert orjson.loads(typed(fresh, chat))["choices"][0]["message"]["content"] == "Hello"
    assert "ollama-11434 up" in typed(fresh, "/opt/edge/bin/edge service status")

    upgrade = re.search(r"\*\*Upgrade:\*\* `(sudo .*?)`", README)
    assert upgrade
    pid = fresh.show("MainPID")
    typed(fresh, upgrade[1])
    until("another main process", lambda: fresh.show("MainPID") not in (pid, "0"))
    assert orjson.loads(typed(fresh, chat))["choices"][0]["message"]["content"] == "Hello"


def test_with_a_key_of_the_credentials_it_is_asked_for(fresh: Machine) -> None:
    """As its section says: the file below the credentials, the line below ``[auth]``, and a restart for a new one."""
    fresh.write("/etc/edge/credentials/key", "a-key-of-the-clients", 0o600)
    settings = fresh.run("cat", "/etc/edge/edge.toml")
    for line in ("[auth]", 'keys = ["credential:edge_key"]'):
        assert f"\n#{line}\n" in settings
        settings = settings.replace(f"\n#{line}\n", f"\n{line}\n")
    fresh.write("/etc/edge/edge.toml", settings)
    typed(fresh, "sudo systemctl restart edge")
    status = "curl -s -o /dev/null -w '%{http_code}' localhost:11435/v1/models"
    assert (typed(fresh, status), typed(fresh, f"{status} -H 'x-api-key: a-key-of-the-clients'")) == ("401", "200")
