"""A backend of the bench: holds its results, so that a round trip measures everything but the computing."""
