"""Listen addresses: ``HOST:PORT``, ``[IPV6]:PORT``, ``unix:PATH`` and ``systemd``.

In: text. Out: a ``Listen``. Must not: resolve names or open sockets.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

_TCP = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on; which of ``host``, ``port`` and ``path`` mean something depends on ``kind``."""

    kind: Literal["tcp", "unix", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Only this machine can connect. False for ``systemd``: its sockets are not known before the start."""
        return self.kind == "unix" or (self.kind == "tcp" and is_loopback(self.host))

    def __str__(self) -> str:
        if self.kind == "tcp":
            return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"unix:{self.path}" if self.kind == "unix" else "systemd"


def parse_listen(text: str) -> Listen:
    """Read one address.

    Raises:
        ValueError: It is not an address; the message says what is expected, without repeating the text.
    """
    if text == "systemd":
        return Listen("systemd")
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    tcp = _TCP.fullmatch(text)
    if tcp is None:
        raise ValueError(_expected(text))
    six, host, port = tcp["six"], tcp["host"], int(tcp["port"])
    if port > 65535:
        raise ValueError("the port must be at most 65535")
    if six is not None and not is_ip(six, 6):
        raise ValueError("what is in brackets is not an IPv6 address")
    if six is not None:
        return Listen("tcp", six, port)
    if not host:
        raise ValueError("the host is missing: every interface is 0.0.0.0:PORT or [::]:PORT")
    if not is_host(host):
        raise ValueError("the host is neither a name nor an IP address")
    return Listen("tcp", host, port)


def is_ip(text: str, version: int) -> bool:
    """Whether this is an IP address of that version."""
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def is_host(text: str) -> bool:
    """Whether this can be a host: a name, or an IP address without brackets."""
    if is_ip(text, 6) or is_ip(text, 4):
        return True
    return _NAME.fullmatch(text) is not None and re.fullmatch(r"[0-9.]+", text) is None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain; another name than ``localhost`` never is."""
    if host.lower() == "localhost":
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _unix(path: str) -> Listen:
    if not path or "\0" in path:
        raise ValueError("the path is missing: unix:PATH")
    return Listen("unix", path=path)


def _expected(text: str) -> str:
    if "://" in text:
        return "write HOST:PORT, without http://"
    if text.count(":") > 1 and "[" not in text:
        return "an IPv6 address needs brackets: [IPV6]:PORT"
    return "must be HOST:PORT, [IPV6]:PORT, unix:PATH or systemd"
