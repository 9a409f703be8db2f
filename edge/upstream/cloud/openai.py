"""The OpenAI cloud, over the official SDK; imported only where such an upstream is configured.

In: an upstream's settings. Out: an ``Upstream``. Must not: let the SDK retry, follow a redirect or use a proxy.
"""

from openai import APIError, APIStatusError, AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.cloud.sdk import Client, Cloud, http_options, settled


def openai(settings: UpstreamSettings) -> Cloud:
    """An upstream of kind ``openai``; must be called with the loop running.

    Raises:
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """
    sdk = AsyncOpenAI(
        api_key=settings.api_key,
        base_url=settings.url,
        max_retries=0,
        timeout=None,
        default_headers={"Accept-Encoding": "identity"},
        http_client=settled(DefaultAioHttpClient(**http_options(settings))),
    )
    return Cloud(settings.name, Client(sdk, AsyncStream[object], APIStatusError, APIError))
