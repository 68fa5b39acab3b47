"""The wire between a upx host and its workers: messages, codec, arrays, and the loop of a worker.

Runs on Python 3.9 with msgpack, pyzmq and numpy alone. Importing the package imports none of them.
"""
