"""The face: one thin module per surface, and the operator's routes."""
