"""What crossing surfaces needs of a dialect: a decoder where upstreams speak it, an encoder where clients do.

In: nothing. Out: the two interfaces, and what is passed through them. Must not: know any dialect.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.dialect import Collector, Said
from edge.protocol.events import Event
from edge.protocol.request import Prepared
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat

Piece = tuple[str | None, dict[str, object]]  # one event of a surface: its name, if the surface names them, and payload


class Decoder(Collector):
    """Makes canonical events of an upstream's payloads. Odd payloads are skipped, never raised on."""

    events: list[Event]  # what ``add`` has found; whoever reads it empties it
    unreadable: str  # what of the answer could not be read, if anything: it must not be passed over

    def whole(self, answer: dict[str, object]) -> Usage | None:
        """Make events of a whole non-stream answer; returns what it reports as usage."""
        raise NotImplementedError


class Encoder:
    """Writes canonical events in a client's surface."""

    __slots__ = ()

    format: type[SurfaceFormat]  # whose terminator comes after the last event of a finished answer

    def add(self, event: Event) -> list[Piece]:
        """The surface's events for it; may be none yet.

        Raises:
            BadStream: what the model has written cannot be said in the surface.
        """
        raise NotImplementedError

    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        """The surface's event for a piece of text or thought, which is escaped: as ``add`` and ``frame`` would make it.

        Empty if the surface has no such pieces; None if this one needs ``add``, as where something begins.
        """
        raise NotImplementedError

    def end(self, usage: Usage | None) -> list[Piece]:
        """What closes a finished answer."""
        raise NotImplementedError

    def frame(self, piece: Piece) -> bytes:
        """A piece as it goes over the wire: whole events, one line of JSON each."""
        raise NotImplementedError

    def begun(self, opened: Opened) -> None:
        """The client already has an event that begins the answer: the one made here is merged into that."""
        raise NotImplementedError

    def progress(self) -> Progress:
        """How far the answer has got, for what Edge itself says."""
        raise NotImplementedError


MARK = "0c3f1f3e"  # stands for a text in an event to be split there; nothing behind it can hold it


class BaseEncoder(Encoder):
    """What most encoders have in common."""

    def plain(self, said: Said, escaped: bytes) -> bytes | None:  # noqa: ARG002
        """Each piece needs ``add``."""
        return None

    @override
    def begun(self, opened: Opened) -> None:
        """Most surfaces have no such event."""

    @override
    def progress(self) -> Progress:
        """On most surfaces nothing depends on it."""
        return Progress()


@dataclass(frozen=True, slots=True)
class Answering:
    """What an encoder needs to know of the exchange.

    Attributes:
        id: Hex digits to make the answer's id of, unique to the exchange.
        created: Unix time.
        echo: See ``canonical.Ask``.
        clock: Monotonic, that by which the request was accepted.
    """

    prepared: Prepared
    id: str
    created: int
    echo: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
