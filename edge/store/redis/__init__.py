"""Stores in a Redis server, which several nodes share."""
