"""The command: one module a verb, loaded when it is named; what they share begins with an underscore."""
