"""Stores in the memory of this process: bounded, and gone when it ends."""
