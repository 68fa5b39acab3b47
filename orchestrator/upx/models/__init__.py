"""What can be done with models besides running them: choose, list, pull, check, import, remove."""
