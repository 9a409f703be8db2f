"""The keys that tokens are verified with, as their issuer publishes them: fetched, kept, and fetched again.

In: the settings; the wish for a key that is not known yet. Out: ``TokenKeys``. Must not: fetch anything but the one
place that is configured, follow redirects, let go of keys because the issuer is not there now, or be made to fetch
more often than it should by whoever sends tokens.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from yarl import URL

from edge.policy.auth.token_keys import NoKeySet, TokenKeys, from_secret, from_set
from edge.settings import Auth
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.fetch import Unreachable, get
from edge.upstream.pool import Pool
from edge.upstream.relay.connection import Ended, Malformed
from edge.upstream.relay.relay import reason

if TYPE_CHECKING:  # only ``edge.telemetry.log`` may import structlog: plainly imported it brings rich along
    from structlog.typing import FilteringBoundLogger

REFRESH_S = 300.0  # how often the keys are fetched anyway: so soon one that was withdrawn is not believed any more
RETRY_S = 15.0  # likewise, while that fails
UNKNOWN_KEY_S = 10.0  # how often they are fetched because of tokens at the most
_FETCH_S = 5.0
_MOST_BYTES = 256 * 1024


class KeySet:
    """The keys of the configured issuer. Made with the loop running; ``close`` must follow ``start``.

    Attributes:
        keys: None until there are some.
        why: Why the latest fetch failed; None if it did not.
    """

    def __init__(self, settings: Auth, log: "FilteringBoundLogger", clock: Callable[[], float] = monotonic) -> None:
        self._place = settings.jwt_jwks
        self._algorithms = frozenset[str](settings.jwt_algorithms)
        self._log = log
        self._clock = clock
        self.keys: TokenKeys | None = (
            from_secret(settings.jwt_secret, self._algorithms) if settings.jwt_secret else None
        )
        self.why: str | None = None
        self._logged_why: str | None = ""  # nothing yet
        self._pool = _pool(self._place) if self._place.startswith(("http://", "https://")) else None
        self._fetched_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeySet {'none' if self.keys is None else len(self.keys)}>"

    def start(self) -> None:
        """Fetch the keys in the background, again and again."""
        if self._place:
            self._watcher = asyncio.create_task(self._watch(), name="key set")

    async def close(self) -> None:
        """Fetch no more."""
        tasks = [task for task in (self._watcher, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._pool is not None:
            await self._pool.close()

    async def look_again(self) -> bool:
        """Fetch the keys because a token needs one that is not among them; whether that was done.

        It is done at most every ``UNKNOWN_KEY_S``; whoever asks while it is being done waits for that.
        """
        if not self._place:
            return False
        if self._fetching is None and self._clock() - self._fetched_at < UNKNOWN_KEY_S:
            return False
        await self.fetch()
        return True

    async def fetch(self) -> None:
        """Fetch the keys now, once for all who ask at the same time; a failure changes nothing but ``why``."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="fetch key set")
            self._fetching.add_done_callback(self._fetched)
        await asyncio.shield(self._fetching)

    def _fetched(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        self._fetched_at = self._clock()
        try:
            async with asyncio.timeout(_FETCH_S):
                text = await self._text()
            self.keys = from_set(text, self._algorithms)
            self.why = None
        except NoKeySet as error:
            self.why = str(error)
        except (TimeoutError, Unreachable, Malformed, Ended, OSError) as error:
            self.why = _reason(error)
        if self.why != self._logged_why:
            self._logged_why = self.why
            if self.why is None:
                self._log.info("token keys", count=len(self.keys or ()))
            else:
                self._log.warning("token keys not to be had", why=self.why, kept=len(self.keys or ()))

    async def _text(self) -> bytes:
        if self._pool is None:
            return await asyncio.to_thread(Path(self._place).read_bytes)
        answer = await get(self._pool, URL(self._place).raw_path_qs, _MOST_BYTES)
        if answer.head.status != 200:
            raise NoKeySet(f"the answer has status {answer.head.status}")
        return answer.body

    async def _watch(self) -> None:
        while True:
            await self.fetch()
            await asyncio.sleep(REFRESH_S if self.why is None else RETRY_S)


def _pool(place: str) -> Pool:
    return Pool(UpstreamSettings(name="token-keys", url=str(URL(place).origin())))


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_FETCH_S:g} s"
    cause = error.__cause__ if isinstance(error, Unreachable) and error.__cause__ else error
    return getattr(cause, "strerror", None) or reason(cause)
