"""Weights: found, verified, and behind their licences."""
