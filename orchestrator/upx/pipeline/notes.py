"""What a user should know of how a picture was done; it stands in the record's warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upx.pipeline.job import Job
    from upx.specs import Capabilities, TilePlan


def cutting_notes(plan: TilePlan, align: int) -> tuple[str, ...]:
    """That tiles are too small to keep to what the model asks for."""
    if len(plan.boxes) == 1 or plan.align == align:
        return ()
    least = align + 2 * plan.overlap
    return (
        f"tiles of less than {least} pixels cannot start where this model's windows do, and may show where they meet",
    )


def precision_notes(job: Job, capabilities: Capabilities) -> tuple[str, ...]:
    """That another precision was taken than the one asked for."""
    if job.precision in {"auto", capabilities.precision}:
        return ()
    backend, device = job.route.backend.name, capabilities.device
    return (f"{backend} does not compute in {job.precision} on {device}: {capabilities.precision} was taken",)
