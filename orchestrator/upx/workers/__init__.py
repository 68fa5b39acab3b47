"""Worker life on the host: find, start, feed, watch and end the processes that compute."""
