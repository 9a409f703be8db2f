"""Readers that come back to streams, from a journal or out of a store."""
