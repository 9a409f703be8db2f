"""Where a Redis server is: the URL of ``store.url``, taken apart.

In: ``redis://`` or ``rediss://``, perhaps with a password. Out: what the client library wants, and texts that can be
shown. Must not: let the password into anything that is shown.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_FORM = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], or rediss://… for TLS"
_HIDDEN = "***"


class Address:
    """A server.

    Raises:
        ValueError: it is not such a URL; says what is wrong, not what it was.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
        except ValueError:
            raise ValueError(f"store.url is not a URL; expected {_FORM}") from None
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError(f"store.url does not begin with redis:// or rediss://; expected {_FORM}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        database = parts.path.strip("/") or options.get("db", "0")  # as other programs spell it
        if not database.isdecimal():
            raise ValueError(f"store.url: the database is a number; expected {_FORM}")
        if strange := sorted(name for name in options if name != "db" and not name.startswith("ssl_")):
            raise ValueError(f"store.url: only db and ssl_… may follow the ?, not {', '.join(strange)}")
        self._url = url
        host = parts.hostname or "localhost"
        self._shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{database}"
        secret = parts.password or ""
        plain = unquote(secret)
        self._secrets = sorted({secret, plain, quote(plain), quote_plus(plain)} - {""}, key=len, reverse=True)

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"<Address {self._shown}>"

    def hide(self, text: str) -> str:
        """A text of the server's without the password: Redis repeats commands that it does not know."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def connections(self) -> Callable[[], Any]:
        """What makes connections, not connected yet, that try everything once. Whoever uses them sees to the time.

        Raises:
            ValueError: an ``ssl_`` option is not one, or has no such value.
        """
        from redis.asyncio import ConnectionPool  # noqa: PLC0415 - an extra, and 0.2 s: only where it is used
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - likewise
        from redis.backoff import NoBackoff  # noqa: PLC0415 - likewise

        options: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "protocol": 2,  # no pushes among answers; Redis 6 and Valkey speak it as well
            "driver_info": None,
        }
        try:
            make: Callable[[], Any] = ConnectionPool.from_url(self._url, **options).make_connection
            make()
        except (TypeError, ValueError) as error:
            raise ValueError(f"store.url: {self.hide(str(error))}") from None
        return make
