"""Enlarge pictures with any super-resolution model, each in its own environment."""
