"""``~`` in paths, and the home directory that the store's default place is in.

In: settings as texts, and the environment. Out: whole paths, or why there is none: in a container the user may have
neither ``HOME`` nor an entry in /etc/passwd. Must not: look at any file, but for the list of users.
"""

import os
import pwd
from collections.abc import Mapping

# Settings that hold paths, and what comes before the path.
_PATHS = {
    "server.listen": "unix:",
    "server.admin_listen": "unix:",
    "server.tls_cert": "",
    "server.tls_key": "",
    "auth.jwt_jwks": "",
    "upstream.ca_file": "",
    "upstream.script": "",
    "store.url": "sqlite:",
}
_DEFAULT_STORE = "sqlite:"


def home_of(user: str, environ: Mapping[str, str]) -> str | None:
    """The home directory of a user, "" for this process's; None if it has none."""
    try:
        if user:
            return pwd.getpwnam(user).pw_dir
        return environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def expanded(key: str, value: object, environ: Mapping[str, str]) -> tuple[object, list[str]]:
    """The value of ``section.name`` with ``~`` and ``~user`` replaced in its paths, and what could not be."""
    if isinstance(value, list):
        items = [expanded(key, item, environ) for item in value]
        return [item for item, _ in items], [fault for _, faults in items for fault in faults]
    prefix = _PATHS.get(key)
    if prefix is None or not isinstance(value, str) or not value.startswith(f"{prefix}~"):
        return value, []
    head, slash, rest = value.removeprefix(prefix).partition("/")
    home = home_of(head[1:], environ)
    if home is None:
        whose = f"user {head[1:]!r} has" if head[1:] else "this user has"
        return value, [f"{head} is no path here: {whose} no home directory; write the whole path"]
    return f"{prefix}{home.rstrip('/')}{slash}{rest}", []


def no_place(url: str, environ: Mapping[str, str]) -> str | None:
    """Why ``store.url`` names no place; None if it names one."""
    given = any(environ.get(name) for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"))
    if url != _DEFAULT_STORE or given or home_of("", environ) is not None:
        return None
    return (
        f"sqlite: is in the user's home directory, and user {os.getuid()} has none (no HOME, no entry in /etc/passwd): "
        "set store.url to sqlite:/PATH/edge.db, or to memory:, or set STATE_DIRECTORY to a directory for it"
    )
