"""What a file of weights says of itself, read without running or unpickling anything: bytes, names and shapes.

Needs the standard library alone. What is not as its format demands is refused, since others will believe it.
"""
