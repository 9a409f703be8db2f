"""The surface of Edge's own sessions."""
