"""The ``lossatlas`` command: ``compare``, ``report``, ``inspect``, ``ls``, ``show``, ``simulate`` and ``env``.

Each module adds its commands to `app`, in the order in which the help lists them.
"""

from lossatlas.lab.commands import training, inspection, losses, environment  # isort: skip
from lossatlas.lab.commands.app import app

__all__ = ["app", "environment", "inspection", "losses", "training"]
