"""The SDKs' clients as fixtures."""

from support.sdk import anthropic_to, no_authorities, ollama_to, openai_to

__all__ = ["anthropic_to", "no_authorities", "ollama_to", "openai_to"]
