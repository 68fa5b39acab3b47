"""Other machines: whose keys are whose, which boxes are known, what one says of itself."""
