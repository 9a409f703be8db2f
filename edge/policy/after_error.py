"""How a stream ends after an error event: by a reset of the connection, or cleanly.

In: the client's surface, what it asks for and its User-Agent. Out: whether the body may end cleanly. Must not: end
anything; whether the error has arrived, and over which version of HTTP, is the subscriber's to see.

A reset cannot be taken for the end of a whole answer, but some clients throw away what they have not read yet, and the
reason with it. A clean end lets everybody read the reason, but a client that ignores error events then takes the answer
for whole. So a clean end is for clients that raise on the event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge.protocol.surface import Surface

# These surfaces have an error that ends the stream by itself, and their clients raise on it: Codex reads nothing but
# `response.failed`, and Ollama's own clients raise on the line.
_ENDED_BY_ERROR = frozenset({Surface.RESPONSES, Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE})
_CHAT = frozenset({Surface.CHAT, Surface.COMPLETIONS})

# Clients of chat completions that lose the reason when the connection is reset, and raise on the error event: the
# product token of their User-Agent, and the version tried.
LOSES_REASON: Mapping[str, str] = {"opencode": "1.18.33"}


@dataclass(frozen=True, slots=True)
class AfterError:
    """What is known of a client that may get an error event.

    Attributes:
        choice: Its own (``x-edge-after-error``), else that of the setting.
        user_agent: As it sent it.
    """

    choice: Literal["auto", "reset", "close"] = "reset"
    user_agent: str = ""

    def closes(self, surface: Surface) -> bool:
        """Whether a stream of this surface may end cleanly after an error event."""
        if surface in _ENDED_BY_ERROR:
            return True
        if surface not in _CHAT or self.choice == "reset":
            return False
        return self.choice == "close" or not LOSES_REASON.keys().isdisjoint(_products(self.user_agent))


ALWAYS_RESETS = AfterError()


def _products(user_agent: str) -> list[str]:
    """The product tokens: ``opencode/1.18 ai/5.0`` has two."""
    return [word.partition("/")[0] for word in user_agent.split()]
