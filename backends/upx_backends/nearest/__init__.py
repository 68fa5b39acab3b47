"""nearest: every pixel repeated; needs numpy alone."""
