"""Edge: a drop-in OpenAI-compatible endpoint whose token streams can be trusted."""

__version__ = "0.1.0"
