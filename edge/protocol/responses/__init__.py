"""The surface of OpenAI's responses."""
