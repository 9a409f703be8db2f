"""The keys that were made, as this process knows them: looked at in the store every second, decided upon here.

In: a ``store.base.KeyStore``. Out: ``CreatedKeys``, at once; the installation's secret for tickets. Must not: let a
request wait for the store, or let go of what it knows because the store is not there now.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import CannotTell
from edge.policy.keys import CreatedKeys
from edge.policy.tickets import SECRET_BYTES
from edge.store.base import KeyStore, StoreDown

if TYPE_CHECKING:  # only ``edge.telemetry.log`` may import structlog: plainly imported it brings rich along
    from structlog.typing import FilteringBoundLogger

LOOK_S = 1.0
_SECRET = "tickets"  # noqa: S105 - its name


class KeyRing:
    """See the module. ``close`` must follow ``start``.

    Attributes:
        keys: None until the store has been read once: nobody knows then whether there are any.
    """

    def __init__(self, store: Callable[[], KeyStore], log: "FilteringBoundLogger") -> None:
        self.keys: CreatedKeys | None = None
        self._opened = store
        self._log = log
        self._mark: object = None
        self._is_down = False
        self._secret: bytes | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeyRing {'unread' if self.keys is None else len(self.keys)}>"

    async def start(self) -> None:
        """Read the store, and go on looking for changes.

        Raises:
            Unusable: it cannot be used until somebody mends it.
        """
        await self.look()
        self._watcher = asyncio.create_task(self._watch(), name="keys")

    async def close(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def look(self) -> None:
        """Read the store if something has changed there."""
        try:
            mark = await self._opened().mark()
            if self.keys is None or mark is None or mark != self._mark:
                self.keys = CreatedKeys(await self._opened().keys())
                self._mark = mark
        except StoreDown as error:
            if not self._is_down:
                self._log.warning("keys not to be had", why=str(error), kept=len(self.keys or ()))
            self._is_down = True
        else:
            if self._is_down:
                self._log.info("keys to be had again", count=len(self.keys))
            self._is_down = False

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
            await self.look()
