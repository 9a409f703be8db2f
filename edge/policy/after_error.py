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

_CHAT = frozenset({Surface.CHAT, Surface.COMPLETIONS})
_OLLAMA = frozenset({Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE})

# Clients of chat completions that lose the reason when the connection is reset, and raise on the error event: the
# product token of their User-Agent, and the version tried.
LOSES_REASON: Mapping[str, str] = {"opencode": "1.18.33"}

# An error line ends a stream of Ollama's own, and Ollama's clients raise on it. These do not: they take the answer for
# whole if the body ends cleanly. Open WebUI 0.12.4 calls itself by its HTTP library alone, with this version.
IGNORES_ERROR_LINE: Mapping[str, str] = {"aiohttp": "3.14.5"}


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
        if surface is Surface.RESPONSES:  # `response.failed` is its own end, and all that Codex reads
            return True
        if surface not in _CHAT | _OLLAMA:
            return False
        if self.choice != "auto":
            return self.choice == "close"
        if surface in _OLLAMA:
            return IGNORES_ERROR_LINE.keys().isdisjoint(_products(self.user_agent))
        return not LOSES_REASON.keys().isdisjoint(_products(self.user_agent))


ALWAYS_RESETS = AfterError()


def _products(user_agent: str) -> list[str]:
    """The product tokens: ``opencode/1.18 ai/5.0`` has two."""
    return [word.partition("/")[0] for word in user_agent.split()]
