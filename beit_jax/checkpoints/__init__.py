"""Weights on disk: ours, and everyone else's."""
