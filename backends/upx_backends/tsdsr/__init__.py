"""tsdsr: the weights of TSD-SR and of the base they need, described; nothing here runs them yet."""
