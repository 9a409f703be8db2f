"""Who shakes hands with whom: the certificate in use, and a bound on the handshakes under way.

In: accepted connections. Out: connections whose handshake is done, for the protocol above. Must not: shake hands by
itself.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from edge.api.tls_layer import Layer
from edge.config import server_context

_SPARE = 16  # handshakes beyond the room for connections: a refusal can be sent only after one


class Certificate:
    """The certificate in use; connections keep the one that they began with."""

    def __init__(self, certificate: str, key: str) -> None:
        self._paths = certificate, key
        self.context = server_context(certificate, key)

    def reload(self) -> None:
        """Take the files as they are now, for connections to come.

        Raises:
            OSError: They cannot be used; what was in use stays so.
        """
        self.context = server_context(*self._paths)


class HandshakeLimit:
    """The protocol factory of TLS listeners: handshakes, a bound number at once, and then the protocol above.

    Args:
        above: Makes the protocol for one more connection, when its handshake is done.
        room: How many more connections there is room for; what goes beyond is closed at once.
    """

    def __init__(
        self, certificate: Certificate, above: Callable[[], asyncio.Protocol], room: Callable[[], int]
    ) -> None:
        self._certificate = certificate
        self._above = above
        self._room = room
        self._shaking: set[Layer] = set()

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one more connection."""
        if len(self._shaking) >= self._room() + _SPARE:
            return _Close()
        layer = Layer(self._certificate.context, self._above, self._shaking.discard)
        self._shaking.add(layer)
        return layer

    def close(self) -> None:
        """Give up the handshakes that are under way."""
        for layer in list(self._shaking):
            layer.abort()


class _Close(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """What could be said would need a handshake."""
        cast("asyncio.Transport", transport).abort()
