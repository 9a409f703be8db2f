"""A call to a server that speaks the surface itself: connections, and the bodies of its answers."""
