"""Losses, target assignment and training objectives for detection, segmentation and pose.

`lossatlas.losses` holds the loss functions and their module forms, `lossatlas.boxes` the geometry they stand on,
`lossatlas.assign` who answers for which object, `lossatlas.targets` the maps that pose networks are trained on, and
`lossatlas.objectives` whole training objectives.
`lossatlas.lab`, which needs the `lab` extra, trains and compares.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from lossatlas._version import __version__

if TYPE_CHECKING:
    from lossatlas import assign, boxes, losses, objectives, targets

__all__ = ["__version__", "assign", "boxes", "losses", "objectives", "targets"]


def __getattr__(name: str) -> ModuleType:
    # The parts are imported when they are first used: the command sets up its threads before it loads torch.
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
