"""The Anthropic cloud, over the official SDK; imported only where such an upstream is configured.

In: an upstream's settings. Out: an ``Upstream``. Must not: let the SDK retry, follow a redirect or use a proxy.
"""

from anthropic import APIError, APIStatusError, AsyncAnthropic, AsyncStream, DefaultAioHttpClient

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.cloud.sdk import Client, Cloud, http_options, settled
from edge.upstream.pool import ANTHROPIC_VERSION


def anthropic(settings: UpstreamSettings) -> Cloud:
    """An upstream of kind ``anthropic``; must be called with the loop running.

    Raises:
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """
    sdk = AsyncAnthropic(
        api_key=settings.api_key,
        base_url=settings.url,
        max_retries=0,
        timeout=None,
        open_telemetry=False,
        # The SDK would name a later version to a client that names none.
        default_headers={"Accept-Encoding": "identity", "anthropic-version": ANTHROPIC_VERSION},
        http_client=settled(DefaultAioHttpClient(**http_options(settings))),
    )
    return Cloud(settings.name, Client(sdk, AsyncStream[object], APIStatusError, APIError))
