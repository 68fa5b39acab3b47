"""Build, find, check, repair and prune one virtualenv per EnvSpec; ``builder.EnvBuilder`` is the way in."""
