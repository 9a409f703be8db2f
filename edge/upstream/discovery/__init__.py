"""Where model servers are, of which kind they are, and which models they have."""
