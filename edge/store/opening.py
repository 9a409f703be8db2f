"""The stores that ``store.url`` names: opened together, since they share a file or a server, and when they are needed.

In: settings, and who hears what happens in them. Out: the stores. Must not: import what is not used: SQLite takes 2 MB,
and Redis more.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.policy.limits.counters import Account, Used
from edge.settings import Settings
from edge.store.access import obstacle
from edge.store.memory.counters import MemoryCounters
from edge.store.memory.keys import MemoryKeys
from edge.store.memory.sessions import MemorySessions
from edge.store.patient_sessions import PatientSessions
from edge.store.ports import (
    CounterStore,
    Durable,
    DurableStreams,
    KeyStore,
    StoreListener,
    StoreStatistics,
    StreamStore,
    Unusable,
)
from edge.store.sqlite.counters import SqliteCounters
from edge.store.sqlite.keys import SqliteKeys

if TYPE_CHECKING:  # it brings SQLite
    from edge.store.sqlite.batcher import SqliteFile

MEMORY = "memory:"
SQLITE = "sqlite:"


@dataclass(frozen=True, slots=True)
class Opened:
    """Stores that share a file or a server.

    Attributes:
        start: See that it can be used; if it only cannot be reached now, that is reported, and tried again. Raises
            ``Unusable`` if it cannot, until somebody mends it.
    """

    start: Callable[[], Awaitable[None]]
    streams: DurableStreams
    sessions: Durable
    counters: Callable[[], CounterStore]  # made when they are wanted
    keys: KeyStore


class Stores:
    """What is kept, and where.

    Attributes:
        sessions: Of conversations.
    """

    def __init__(self, settings: Settings, hear: StoreListener, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._hear = hear
        self._environ = environ
        self._opened: Opened | None = None
        self._file: SqliteFile | None = None
        self._counters: CounterStore | None = None
        most_bytes = settings.store.memory_bytes
        self.sessions: Durable = (
            MemorySessions(settings.sessions, most_bytes=most_bytes)
            if settings.store.url == MEMORY
            else PatientSessions(lambda: self._open().sessions, settings.sessions, most_bytes)
        )
        self._keys: KeyStore | None = None

    @property
    def shared(self) -> bool:
        """Other processes may write there too."""
        return self._settings.store.url != MEMORY

    @property
    def empty(self) -> bool:
        """There is no file yet."""
        url = self._settings.store.url
        return url.startswith(SQLITE) and not path_of(url, self._environ).exists()

    def obstacle(self) -> str | None:
        """What this process's user may not where the file is, or will be, and what mends it; None if nothing."""
        url = self._settings.store.url
        return obstacle(path_of(url, self._environ)) if url.startswith(SQLITE) else None

    async def start(self) -> None:
        """See that they can be used, as far as there is anything in them, and the file is within reach.

        Raises:
            Unusable: they cannot, until somebody mends them.
        """
        if self.shared and self.obstacle() is None and not self.empty:
            await self._open().start()
            await self.counters().open()

    def streams(self) -> StreamStore | None:
        """Of streams; None where there is nothing but this process's memory."""
        return None if self._settings.store.url == MEMORY else self._open().streams

    def counters(self) -> CounterStore:
        """Of limits and usage. A file is only opened when there is something to be written, or it is there."""
        if self._counters is None:
            url = self._settings.store.url
            if url == MEMORY:
                self._counters = MemoryCounters()
            elif url.startswith(SQLITE):
                self._counters = SqliteCounters(self._opened_file)
            else:
                self._counters = self._open().counters()
        return self._counters

    async def usage(self, first: str) -> Mapping[Account, Used]:
        """What was used from this day on, by whom, for a command that counts nothing itself.

        Raises:
            StoreDown, Unusable: that cannot be found out.
        """
        url = self._settings.store.url
        if not url.startswith(SQLITE):
            return await self.counters().usage(first)
        if self.empty:
            return {}
        from edge.store.sqlite.counts import read_usage  # noqa: PLC0415 - see the module

        self._open()  # which is closed in the end, and closes the file
        return await self._opened_file().read(lambda connection: read_usage(connection, first), dict[Account, Used]())

    def statistics(self) -> StoreStatistics | None:
        """How they are; None if nothing can be down, or has been used."""
        return None if self._opened is None else self._opened.streams.statistics()

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force; ``store.url`` stays."""
        self._settings = settings
        self.sessions.apply_settings(settings)
        if self._opened is not None:
            self._opened.streams.apply_settings(settings)

    async def close(self) -> None:
        """Write what is to be written, and let go."""
        if self._counters is not None:
            await self._counters.close()
        await self.sessions.close()
        if self._keys is not None:
            await self._keys.close()
        if self._opened is not None:
            await self._opened.keys.close()
            await self._opened.sessions.close()  # which may have been opened with the streams, and not used
            await self._opened.streams.close()

    @property
    def keys(self) -> KeyStore:
        """Of keys that were made. They are looked for from the start, which must not make a file.

        Raises:
            Unusable: see ``start``.
        """
        if self._keys is None:
            url = self._settings.store.url
            if url == MEMORY:
                self._keys = MemoryKeys()
            elif url.startswith(SQLITE):
                self._keys = SqliteKeys(path_of(url, self._environ), self._opened_file)
            else:
                self._keys = self._open().keys
        return self._keys

    def _open(self) -> Opened:
        if self._opened is None:
            if self._settings.store.url.startswith(SQLITE):
                self._opened = self._sqlite()
            else:
                self._opened = _redis(self._settings, self._hear)
        return self._opened

    def _opened_file(self) -> "SqliteFile":
        """The one that all stores of this process share."""
        if self._file is None:
            from edge.store.sqlite.batcher import SqliteFile  # noqa: PLC0415 - see the module

            self._file = SqliteFile(path_of(self._settings.store.url, self._environ), self._hear)
        return self._file

    def _sqlite(self) -> Opened:
        from edge.store.sqlite.sessions import SqliteSessions  # noqa: PLC0415 - see the module
        from edge.store.sqlite.streams import SqliteStreams  # noqa: PLC0415

        file = self._opened_file()
        streams = SqliteStreams(file, self._settings.store)
        sessions = SqliteSessions(file, self._settings.sessions)
        return Opened(file.start, streams, sessions, self.counters, self.keys)


def _redis(settings: Settings, hear: StoreListener) -> Opened:
    from edge.store.redis.counters import RedisCounters  # noqa: PLC0415 - see the module
    from edge.store.redis.keys import RedisKeys  # noqa: PLC0415
    from edge.store.redis.link import RedisLink  # noqa: PLC0415
    from edge.store.redis.sessions import RedisSessions  # noqa: PLC0415
    from edge.store.redis.streams import RedisStreams  # noqa: PLC0415

    try:
        link = RedisLink(settings.store.url, hear)
    except ValueError as error:
        raise Unusable(str(error)) from None
    streams = RedisStreams(link, settings.store)
    sessions = RedisSessions(link, settings.sessions)
    return Opened(streams.open, streams, sessions, lambda: RedisCounters(link), RedisKeys(link))


def path_of(url: str, environ: Mapping[str, str]) -> Path:
    """Which file ``store.url`` means: ``sqlite:PATH``, or ``sqlite:`` for the state directory's."""
    given = url.removeprefix(SQLITE)
    if given:
        return Path(given)
    service = environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd's; there may be several
    if service:
        return Path(service, "edge.db")
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or Path.home(), ".local", "state")
    return Path(state, "edge", "edge.db")


def shown_url(url: str, environ: Mapping[str, str]) -> str:
    """``store.url`` as it may be shown: the whole path, and no password."""
    if url.startswith(SQLITE):
        return f"{SQLITE}{path_of(url, environ)}"
    if url == MEMORY:
        return url
    from edge.store.redis.address import Address  # noqa: PLC0415 - see the module

    return str(Address(url))
