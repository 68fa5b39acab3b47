"""convert: opens what torch saved, with its restricted unpickler and nothing else; needs torch."""
