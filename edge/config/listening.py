"""What cannot work among the settings of listening.

In: settings. Out: conflicts, each with the keys that are part of it. Must not: repeat a configured value, open a
socket, or touch anything but the certificate and its key.
"""

import grp
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from edge.config.authentication import asks_for_keys
from edge.config.certificate import server_context
from edge.config.listen import Listen, parse_listen
from edge.config.problems import Conflict
from edge.settings import Settings

_MODE = re.compile(r"0?[0-7]{3}")
_LISTEN, _ADMIN = "server.listen", "server.admin_listen"


def addresses(settings: Settings) -> list[Listen]:
    """All addresses that can be read, the operator's included."""
    return [listen for key in (_LISTEN, _ADMIN) for listen in _read(settings, key) if isinstance(listen, Listen)]


def listening(settings: Settings) -> Iterator[Conflict]:
    """Everything that cannot work."""
    yield from _listen(settings)
    yield from _admin(settings)
    yield from _unix(settings)
    yield from _tls(settings)
    yield from _proxies(settings)


def _read(settings: Settings, key: str) -> list[Listen | str]:
    """Each address of a list, or what is wrong with it."""
    read: list[Listen | str] = []
    for text in settings.server.admin_listen if key == _ADMIN else settings.server.listen:
        try:
            read.append(parse_listen(text))
        except ValueError as error:
            read.append(str(error))
    return read


def _listen(settings: Settings) -> Iterator[Conflict]:
    read = _read(settings, _LISTEN)
    if not read:
        yield Conflict((_LISTEN,), "needs at least one address")
    yield from _unreadable(_LISTEN, read)
    if _has_twice(read):
        yield Conflict((_LISTEN,), "has the same address twice")
    if _is_beyond(read) and not asks_for_keys(settings.auth) and not settings.auth.allow_anonymous:
        yield Conflict(
            (_LISTEN, "auth.keys", "auth.require_key", "auth.allow_anonymous"),
            "Edge refuses to listen beyond loopback and Unix sockets without auth.keys, or auth.require_key = true for "
            "keys that edge keys create makes, unless auth.allow_anonymous = true says so",
        )


def _admin(settings: Settings) -> Iterator[Conflict]:
    read = _read(settings, _ADMIN)
    yield from _unreadable(_ADMIN, read)
    if any(isinstance(listen, Listen) and listen.kind == "systemd" for listen in read):
        message = "cannot be systemd, whose sockets are all for server.listen; write HOST:PORT or unix:PATH"
        yield Conflict((_ADMIN,), message)
    if _has_twice(read):
        yield Conflict((_ADMIN,), "has the same address twice")
    elif _has_twice([*read, *set(_read(settings, _LISTEN))]):
        yield Conflict((_ADMIN, _LISTEN), "has an address that server.listen has too")
    if _is_beyond(read) and not settings.auth.allow_anonymous:
        yield Conflict(
            (_ADMIN, "auth.allow_anonymous"),
            "Edge refuses to listen beyond loopback and Unix sockets where it asks for no key, unless "
            "auth.allow_anonymous = true says so",
        )


def _unreadable(key: str, read: list[Listen | str]) -> Iterator[Conflict]:
    for n, fault in enumerate(read, start=1):
        if isinstance(fault, str):
            yield Conflict((key,), f"item {n}: {fault}")


def _has_twice(read: list[Listen | str]) -> bool:
    fixed = [listen for listen in read if isinstance(listen, Listen) and (listen.kind != "tcp" or listen.port)]
    return len(set(fixed)) < len(fixed)


def _is_beyond(read: list[Listen | str]) -> bool:
    return any(isinstance(listen, Listen) and listen.kind == "tcp" and not listen.loopback for listen in read)


def _unix(settings: Settings) -> Iterator[Conflict]:
    if not _MODE.fullmatch(settings.server.unix_mode):
        yield Conflict(("server.unix_mode",), 'must be three octal digits, such as "0660"')
    group = settings.server.unix_group
    if group and not (group.isascii() and group.isdecimal()):
        try:
            grp.getgrnam(group)
        except (KeyError, ValueError):
            yield Conflict(("server.unix_group",), "there is no such group on this machine; see getent group")


def _tls(settings: Settings) -> Iterator[Conflict]:
    certificate, key = settings.server.tls_cert, settings.server.tls_key
    if bool(certificate) != bool(key):
        given, missing = ("tls_cert", "tls_key") if certificate else ("tls_key", "tls_cert")
        yield Conflict((f"server.{given}", f"server.{missing}"), f"needs server.{missing} as well")
    elif certificate:
        try:
            server_context(certificate, key)
        except OSError as error:
            yield Conflict(("server.tls_cert", "server.tls_key"), str(error.strerror))


def _proxies(settings: Settings) -> Iterator[Conflict]:
    for n, text in enumerate(settings.server.trusted_proxies, start=1):
        if text == "unix" or _is_network(text):
            continue
        message = f"item {n} must be an IP address, a network such as 10.0.0.0/8 (nothing after its prefix), or unix"
        yield Conflict(("server.trusted_proxies",), message)


def _is_network(text: str) -> bool:
    try:
        return bool(ip_network(text) if "/" in text else ip_address(text))
    except ValueError:
        return False
