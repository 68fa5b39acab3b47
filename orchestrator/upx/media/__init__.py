"""Pictures: files, Pillow's pictures and arrays in; rows of pixels out."""
