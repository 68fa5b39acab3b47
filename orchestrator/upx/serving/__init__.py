"""This machine as a box: the supervising process of ``upx worker serve`` and what it knows for its workers."""
