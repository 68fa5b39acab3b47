"""The backends that come with upx: one folder each, no imports between them."""
