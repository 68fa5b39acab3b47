"""The files in which backends and weights are described: their shapes (pydantic) and the specs made of them.

``build`` is light; ``backend``, ``pulling`` and ``tables`` import pydantic, which takes longer than all else before
the first tile, and are imported only for a file that was not checked before.
"""
