"""Model cards in Ollama's words: what its clients are shown of models, wherever these are.

In: entries of the merged model list. Out: entries of ``/api/tags`` and ``/api/ps``, and answers of ``/api/show``.
Must not: claim what a card does not say; what is unknown is empty or 0.
"""

import hashlib
from typing import Any

from edge.protocol.ollama.format import now_text
from edge.upstream.discovery.servers import Card

_LATEST = ":latest"
_FOREVER = "2318-01-01T00:00:00Z"  # as of an Ollama that is to keep it; other servers never unload a model
_UNKNOWN_FAMILY = "unknown"
# Nobody's card says whether a model takes tools; its server does when it gets some. Without the word, editors hide it.
_CAPABILITIES = ["completion", "tools"]


def tag(card: Card) -> dict[str, Any]:
    """An entry of ``/api/tags``."""
    identity = card["id"]
    name = identity if ":" in identity else identity + _LATEST
    digest = card.get("digest")
    modified = card.get("modified_at")
    return {
        "name": name,
        "model": name,
        "modified_at": modified if isinstance(modified, str) else now_text(_number(card, "created") or None),
        "size": _number(card, "size"),
        # ``ollama list`` shows the first digits of it, and falls over without any.
        "digest": digest if isinstance(digest, str) and digest else hashlib.sha256(identity.encode()).hexdigest(),
        "details": _details(card),
        "capabilities": _capabilities(card),
    }


def running(card: Card) -> dict[str, Any]:
    """An entry of ``/api/ps``."""
    entry = tag(card)
    del entry["modified_at"], entry["capabilities"]
    return {**entry, "expires_at": _FOREVER, "size_vram": 0, "context_length": _context(card)}


def shown(card: Card) -> dict[str, Any]:
    """The answer of ``/api/show``."""
    entry = tag(card)
    family = entry["details"]["family"] or _UNKNOWN_FAMILY
    facts = {
        "general.architecture": family,
        "general.parameter_count": _number(card, "n_params"),
        f"{family}.context_length": _context(card),
        f"{family}.embedding_length": _number(card, "n_embd"),
    }
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": entry["details"],
        "model_info": {name: value for name, value in facts.items() if value},
        "capabilities": entry["capabilities"],
        "modified_at": entry["modified_at"],
    }


def _capabilities(card: Card) -> list[Any]:
    reported = card.get("capabilities")
    return reported if isinstance(reported, list) else _CAPABILITIES


def _details(card: Card) -> dict[str, Any]:
    known = card.get("details")
    neutral = {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": None,
        "parameter_size": _size_text(_number(card, "n_params")),
        "quantization_level": "",
    }
    return {**neutral, **known} if isinstance(known, dict) else neutral


def _context(card: Card) -> int:
    """llama.cpp's, that with which the model was trained, or vLLM's."""
    return _number(card, "n_ctx") or _number(card, "n_ctx_train") or _number(card, "max_model_len")


def _number(card: Card, name: str) -> int:
    """On the card itself, or among what llama.cpp says of the file."""
    meta = card.get("meta")
    for holder in (card, meta if isinstance(meta, dict) else {}):
        value = holder.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _size_text(parameters: int) -> str:
    """As Ollama writes it: ``8.0B``, ``134.52M``."""
    if not parameters:
        return ""
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.2f}M"
