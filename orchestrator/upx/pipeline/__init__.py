"""One job: decode, tile, send, stitch, encode."""
