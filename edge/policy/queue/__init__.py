"""Who gets a slot of an upstream, and in which order the others wait."""
