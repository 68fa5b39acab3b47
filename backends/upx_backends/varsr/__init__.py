"""varsr: the weights of VARSR, described; nothing here runs them yet."""
