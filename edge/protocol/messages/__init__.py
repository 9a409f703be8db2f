"""The surface of Anthropic's messages."""
