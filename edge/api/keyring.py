"""The keys that were made, as this process knows them: looked at in the store every second, decided upon here.

In: a ``store.ports.KeyStore``. Out: ``CreatedKeys``, at once, and whether they are sure to be all there are; the
installation's secret for tickets. Must not: take "it could not be read" for "there are none", or let go of the keys it
knows because the store is not there now.
"""

import asyncio
import secrets
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge.errors import CannotTell
from edge.policy.auth.keys import CreatedKeys
from edge.policy.auth.tickets import SECRET_BYTES
from edge.store.ports import KeyStore, StoreDown

if TYPE_CHECKING:  # only ``edge.telemetry.log`` may import structlog: plainly imported it brings rich along
    from structlog.typing import FilteringBoundLogger

LOOK_S = 1.0
_FRESH_S = 2 * LOOK_S  # a look that is older proves nothing: keys may have been made since
_WAIT_S = 3.0  # for a look; a disk or server that hangs longer cannot be read
_APART_S = 0.1  # between looks, since whoever sends keys that nobody knows brings them about
_SECRET = "tickets"  # noqa: S105 - its name


class KeyRing:
    """See the module. ``close`` must follow ``start``.

    Args:
        store: Opens the store when it is first needed.
        log: Gets a line when the store cannot be read, and when it can be again.
        clock: Seconds, monotonic.

    Attributes:
        keys: As read last. None until the store has been read once.
        why: Why the latest look failed; None if it did not.
    """

    def __init__(
        self, store: Callable[[], KeyStore], log: "FilteringBoundLogger", clock: Callable[[], float] = monotonic
    ) -> None:
        self.keys: CreatedKeys | None = None
        self.why: str | None = None
        self._opened = store
        self._log = log
        self._clock = clock
        self._mark: object = None
        self._unchanged_at = float("-inf")  # when the latest look that succeeded began
        self._looked_at = float("-inf")  # when the latest look ended
        self._looking: asyncio.Task[None] | None = None
        self._secret: bytes | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeyRing {'unread' if self.keys is None else len(self.keys)}{' down' if self.why else ''}>"

    @property
    def certain(self) -> bool:
        """Whether ``keys`` are all there are: the store was read, and a moment ago nothing had changed there since."""
        return self.why is None and self._clock() - self._unchanged_at <= _FRESH_S

    @property
    def public_why(self) -> str | None:
        """``why`` for anybody: without where the store is."""
        return None if self.why is None else _without(self.why, self._opened().place)

    async def start(self) -> None:
        """Read the store, and go on looking for changes.

        Raises:
            Unusable: it cannot be used until somebody mends it.
        """
        self._opened()
        await self._look_within()
        self._watcher = asyncio.create_task(self._watch(), name="keys")

    async def close(self) -> None:
        """Look no more."""
        tasks = [task for task in (self._watcher, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def look(self) -> None:
        """Read the store if something has changed there; ``why`` says whether that failed. Never raises.

        The look begins after this is called: whoever asks while another is under way shares the next one.
        """
        before = self._looking
        if before is not None:
            await asyncio.wait({before})
        if self._looking is before:
            self._looking = asyncio.create_task(self._look(), name="look for keys")
        if self._looking is not None:
            await asyncio.wait({self._looking})

    async def refresh(self) -> bool:
        """Look on behalf of a request; whether ``keys`` are all there are now.

        During an outage a request that finds another look under way does not wait for it.
        """
        if self.why is None or self._looking is None or self._looking.done():
            await self._look_within()
        return self.certain

    async def secret(self) -> bytes:
        """What tickets are signed with, here and wherever else the store is used.

        Raises:
            CannotTell: the store cannot be asked for it.
        """
        if self._secret is None:
            try:
                self._secret = await self._opened().secret(_SECRET, secrets.token_bytes(SECRET_BYTES))
            except StoreDown:
                raise CannotTell("tickets are signed with what the store keeps, which cannot be asked now") from None
        return self._secret

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look_within()

    async def _look_within(self) -> None:
        """``look``, but for ``_WAIT_S`` at the most. One that hangs goes on, and no other is begun beside it."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self.look()
        except TimeoutError:
            self._failed(f"no answer within {_WAIT_S:g} s")

    async def _look(self) -> None:
        pause_s = self._looked_at + _APART_S - self._clock()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        began = self._clock()
        try:
            await self._read()
        except Exception as error:  # noqa: BLE001 - no thread or no memory to be had, say: it is unread, and the log says so
            self._failed(str(error) or type(error).__name__)
        else:
            self._unchanged_at = began
            self._succeeded()
        self._looked_at = self._clock()

    async def _read(self) -> None:
        store = self._opened()
        mark = await store.mark()  # before the keys: what is put in between is read twice rather than not at all
        if self.keys is None or mark is None or mark != self._mark:
            self._mark = None
            self.keys = CreatedKeys(await store.keys())
            self._mark = mark

    def _failed(self, why: str) -> None:
        fields, self.why = self.why is not None, why
        if not fields:
            kept = len(self.keys or ())
            effect = "keys that are known work on" if kept else "only static keys and tokens let anybody in"
            self._log.warning("cannot read the key store", why=why, kept=kept, effect=effect)

    def _succeeded(self) -> None:
        if self.why is not None:
            self._log.info("key store read again", count=len(self.keys or ()))
        self.why = None


def _without(why: str, place: str) -> str:
    """A reason without the address or path in it."""
    url = urlsplit(place)
    path = "" if url.netloc else url.path
    for part in (place, url.netloc, url.hostname, path):
        why = why.replace(part, "the store") if part else why
    return why
