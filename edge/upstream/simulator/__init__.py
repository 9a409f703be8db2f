"""An upstream without a network or a model, for developing clients."""
