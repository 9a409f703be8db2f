"""The Anthropic cloud, over the official SDK; imported only where such an upstream is configured.

In: an upstream's settings. Out: an ``Upstream``. Must not: let the SDK retry, follow a redirect or use a proxy.
"""

from collections.abc import Mapping
from typing import cast

import httpx2
from anthropic import APIError, APIStatusError, AsyncAnthropic, AsyncStream, DefaultAioHttpClient

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.pool import ANTHROPIC_VERSION
from edge.upstream.sdk import Cloud, Upload, http_options


def anthropic(settings: UpstreamSettings) -> Cloud:
    """An upstream of kind ``anthropic``; must be called with the loop running.

    Raises:
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """
    return Cloud(settings.name, _Client(settings))


class _Client:
    """See ``sdk.Client``."""

    failures: tuple[type[Exception], ...] = (APIError,)

    def __init__(self, settings: UpstreamSettings) -> None:
        self._sdk = AsyncAnthropic(
            api_key=settings.api_key,
            base_url=settings.url,
            max_retries=0,
            timeout=None,
            open_telemetry=False,
            # The SDK would name a later version to a client that names none.
            default_headers={
                "Accept-Encoding": "identity",
                "anthropic-version": ANTHROPIC_VERSION,
                **settings.headers,
            },
            http_client=DefaultAioHttpClient(**http_options(settings)),
        )

    async def post(self, path: str, body: Upload, headers: Mapping[str, str]) -> httpx2.Response:
        """See ``sdk.Client``."""
        try:
            answer = await self._sdk.post(
                path,
                cast_to=httpx2.Response,
                content=body,
                options={"headers": headers},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except APIStatusError as refused:
            return refused.response
        return cast("httpx2.Response", answer)  # what ``cast_to`` asked for, streamed or not

    async def close(self) -> None:
        """See ``sdk.Client``."""
        await self._sdk.close()
