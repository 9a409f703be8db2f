"""Clouds, each over its official SDK."""
