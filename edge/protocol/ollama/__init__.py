"""The surfaces of Ollama's own API."""
