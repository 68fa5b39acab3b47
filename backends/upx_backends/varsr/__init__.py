"""varsr: VARSR on torch, with upstream's pins in an environment of its own."""
