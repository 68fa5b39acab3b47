"""hitsr: the weights of HiT-SR, described; nothing here runs them yet."""
