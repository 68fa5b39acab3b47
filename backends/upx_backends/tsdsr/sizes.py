"""How large the picture is that the networks see: upstream's rule, and our own where upstream fails. No torch in here.

Upstream enlarges a small picture until no side is below ``process_size``, and squeezes every one to multiples of 8.
Two kinds of pictures end badly there, and are dealt with here: those whose latent has an odd side where the
transformer, which takes patches of 2 x 2, needs an even one (they are squeezed to multiples of 16), and small ones that
are thin as well (they are mirrored to at most 1 : 8 before; enlarged as they are, they would fill any memory).
"""

from __future__ import annotations

SCALE = 4
# Pixels of one side of a latent's pixel; of a patch of the transformer, in latent pixels.
VAE_SCALE = 8
PATCH = 2
# How long a picture that has to be enlarged may be, in widths.
LONGEST = 8


def margins(height: int, width: int, *, process_size: int) -> tuple[int, int]:
    """Rows and columns by which a small and thin picture is to grow, in input pixels; 0, 0 for all others."""
    floor = process_size // SCALE
    least = min(floor, -(-max(height, width) // LONGEST))
    return max(0, least - height), max(0, least - width)


def enlarged(height: int, width: int, *, process_size: int) -> tuple[int, int]:
    """Upstream's size (H, W) before the networks, a multiple of 8: enlarged with its sides cut, not rounded."""
    floor = process_size // SCALE
    if width < floor or height < floor:
        factor = floor / min(width, height)
        height, width = int(factor * height), int(factor * width)
    return SCALE * height // VAE_SCALE * VAE_SCALE, SCALE * width // VAE_SCALE * VAE_SCALE


def fitting(height: int, width: int, *, tile: int, longest: int) -> tuple[int, int]:
    """``enlarged``'s size, cut to multiples of 16 if that is what the transformer's calls need."""
    latent = height // VAE_SCALE, width // VAE_SCALE
    whole = at_once(*latent, tile=tile, longest=longest)
    called = latent if whole else (min(tile, *latent),) * 2
    if all(side % PATCH == 0 for side in called):
        return height, width
    step = VAE_SCALE * PATCH
    return height // step * step, width // step * step


def at_once(height: int, width: int, *, tile: int, longest: int) -> bool:
    """Whether a latent goes through the transformer in one call: its area counts, up to the table's own side."""
    return height * width <= tile * tile and max(height, width) <= longest
