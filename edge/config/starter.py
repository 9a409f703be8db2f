"""A configuration file to start from: short, annotated, and right as it is.

In: the servers that it is for, and whether it is a service's. Out: the text of a TOML file. Must not: look for servers,
or write a secret into it: a key is named by its variable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# What `edge init --for` takes: the kind as in the settings (empty if Edge recognises it), the usual URL, and notes.
_KINDS: dict[str, tuple[str, str, str]] = {
    "ollama": (
        "ollama",
        "http://127.0.0.1:11434",
        """\
# Clients of Ollama (Open WebUI, Home Assistant) change its URL to Edge's; OpenAI's SDKs add /v1 to that.
# Ollama cuts what is longer than its context and does not say so. With the length named here, Edge asks for it.
#num_ctx = 16384
#keep_alive = "30m"
#on_truncation = "refuse" # a 400 for every prompt that is too long; unset, only for those of agents (with tools)
""",
    ),
    "vllm": (
        "",
        "http://127.0.0.1:8000",
        """\
#api_key = "${VLLM_API_KEY}" # what vLLM was started with as --api-key

# A second server with the same model: a request goes to the less busy one, and to the other one if the first fails
# before its first token.
#[[upstream]]
#name = "gpu1"
#url = "http://10.0.0.2:8000"
#api_key = "${VLLM_API_KEY}"
""",
    ),
    "llama.cpp": (
        "",
        "http://127.0.0.1:8080",
        """\
# It works on as many requests at once as it has slots (--parallel); Edge asks it, and queues the others fairly.
#api_key = "${LLAMA_API_KEY}" # if it was started with --api-key
""",
    ),
    "lm-studio": ("", "http://127.0.0.1:1234", ""),
    "openai": ("openai", "", 'api_key = "${OPENAI_API_KEY}"\n'),
    "anthropic": ("anthropic", "", 'api_key = "${ANTHROPIC_API_KEY}"\n'),
}
_NAMES = {"vllm": "gpu0", "llama.cpp": "llama"}
CHOICES = tuple(_KINDS)

_HEAD = """\
# Edge reads this file if it lies in the directory in which `edge serve` is started, or with `edge serve --config`.
# `edge check` says what Edge makes of it; a running Edge takes changes with `edge reload`.
# Every setting, with its default and what it does: `edge init --reference`.
# In a string, ${VAR} is an environment variable; "credential:NAME" as a whole is a systemd credential.
"""
_SERVICE_HEAD = """\
# Edge as a service. After a change: `systemctl reload edge`, or `restart` for what a reload cannot change.
# Every setting, with its default and what it does: `edge init --reference`.
# In a string, ${VAR} is an environment variable; "credential:edge_NAME" as a whole is the content of
# /etc/edge/credentials/NAME.
"""
_NOTHING_FOUND = """\
# Without an upstream, Edge looks for model servers on this host's usual ports: Ollama 11434, vLLM 8000, llama.cpp 8080,
# LM Studio 1234. To name one instead:
#[[upstream]]
#name = "local"
#url = "http://127.0.0.1:8000"
"""
_LISTEN = """\
# To serve other hosts, listen beyond loopback. That takes a key, so that nobody else can use your models.
#[server]
#listen = ["0.0.0.0:11435"]
"""
_LISTEN_OF_SERVICE = """\
[server]
listen = ["systemd"] # the addresses are those of edge.socket: systemctl edit edge.socket
"""
_AUTH = """\
# Keys with names, ends and limits are made without a restart: edge keys create --name alice
#[auth]
#keys = ["{key}"]
"""
_AUTH_OF_CLOUDS = """\
# Who may call: without a key, everybody on this host could use yours of the cloud.
[auth]
keys = ["{key}"]
"""
_LIMIT = """\
# What one caller may have at most.
#[[limit]]
#name = "everybody"
#requests_per_min = 60
#concurrent = 4
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that the file names.

    Attributes:
        name: Of the upstream.
        url: Empty for a cloud.
        kind: As in the settings; empty where Edge recognises it.
        notes: Lines that follow, commented out or not.
    """

    name: str
    url: str
    kind: str = ""
    notes: str = ""

    @property
    def block(self) -> str:
        """``[[upstream]]`` and what belongs to it."""
        pairs = {"name": self.name, "kind": self.kind, "url": self.url}
        lines = [f'{key} = "{value}"\n' for key, value in pairs.items() if value]
        return "".join(["[[upstream]]\n", *lines, self.notes])


def usual(choice: str) -> Server:
    """The server of one of ``CHOICES`` where it usually is."""
    kind, url, notes = _KINDS[choice]
    return Server(_NAMES.get(choice, choice), url, kind, notes)


def found_at(choice: str, name: str, url: str) -> Server:
    """A server that was found, with the notes of its choice if that is one of ``CHOICES``."""
    kind, _, notes = _KINDS.get(choice, ("", "", ""))
    return Server(name, url, kind, notes)


def starter(servers: Sequence[Server], *, service: bool = False) -> str:
    """The text of the file.

    Args:
        servers: What Edge is to stand in front of; none if it is to look for model servers by itself.
        service: It is systemd's, whose sockets it listens on.
    """
    clouds = any(not server.url for server in servers)
    key = "credential:edge_key" if service else "${EDGE_KEY}"
    parts = [
        _SERVICE_HEAD if service else _HEAD,
        *([server.block for server in servers] or [_NOTHING_FOUND]),
        _LISTEN_OF_SERVICE if service else _LISTEN,
        (_AUTH_OF_CLOUDS if clouds else _AUTH).replace("{key}", key),
        _LIMIT,
    ]
    return "\n".join(parts)
