"""The plain data that siblings share: what a backend is, what its environment and weights are, what a worker can do.

Frozen dataclasses without behaviour beyond derived properties; nothing here does I/O.
"""

from upx.specs.backends import BackendSpec, EnvSpec, ParameterKind, ParameterSpec, ParameterValue
from upx.specs.pictures import Box, Capabilities, ColourSpec, SizeRequirements, Stitch, TilePlan, TilingSpec
from upx.specs.weights import (
    Asset,
    DriveSource,
    HubSource,
    Licence,
    ManualSource,
    ModelSpec,
    OneDriveSource,
    PackageSource,
    Source,
    UrlSource,
)

__all__ = [
    "Asset",
    "BackendSpec",
    "Box",
    "Capabilities",
    "ColourSpec",
    "DriveSource",
    "EnvSpec",
    "HubSource",
    "Licence",
    "ManualSource",
    "ModelSpec",
    "OneDriveSource",
    "PackageSource",
    "ParameterKind",
    "ParameterSpec",
    "ParameterValue",
    "SizeRequirements",
    "Source",
    "Stitch",
    "TilePlan",
    "TilingSpec",
    "UrlSource",
]
