"""Requests: admitted, sent upstream, failed over, recorded."""
