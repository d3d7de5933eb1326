"""Losses, target assignment and training objectives for detection, segmentation and pose.

`lossatlas.losses` holds the loss functions and their module forms, `lossatlas.boxes` the geometry they stand on,
`lossatlas.assign` who answers for which object, and `lossatlas.objectives` whole training objectives.
`lossatlas.lab`, which needs the `lab` extra and is not imported here, trains and compares.
"""

from lossatlas import assign, boxes, losses, objectives
from lossatlas._version import __version__

__all__ = ["__version__", "assign", "boxes", "losses", "objectives"]
