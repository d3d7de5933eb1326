"""The ``lossatlas`` command: ``compare``, ``report``, ``inspect``, ``ls``, ``show``, ``simulate`` and ``env``.

What a command does is in a module of its own, which is imported when the command is run or its help is shown: neither
the list of commands nor one that reads data has to wait for what trains.
"""

from collections.abc import Callable
from typing import Any

from lossatlas.lab.commands.app import app, command

__all__ = ["app"]

# In the order in which the help lists them, each with the first line of its own help.


@command("compare")
def _compare() -> Callable[..., Any]:
    """Train several losses with several seeds and say which is better."""
    from lossatlas.lab.commands.training import compare

    return compare


@command("report")
def _report() -> Callable[..., Any]:
    """Write the report of a comparison again, from what its folder holds."""
    from lossatlas.lab.commands.training import report

    return report


@command("inspect")
def _inspect() -> Callable[..., Any]:
    """Say who answers for whom before anything is trained: which objects get positives, and which get none."""
    from lossatlas.lab.commands.inspection import inspect_data

    return inspect_data


@command("ls")
def _ls() -> Callable[..., Any]:
    """List every loss: family, name, what it is, and the paper."""
    from lossatlas.lab.commands.losses import list_losses

    return list_losses


@command("show")
def _show() -> Callable[..., Any]:
    """Show a loss: formula, arguments, source, and a plot of its value and gradient."""
    from lossatlas.lab.commands.losses import show

    return show


@command("simulate")
def _simulate() -> Callable[..., Any]:
    """Let boxes descend box losses: the regression simulation of the DIoU paper, 1,715,000 cases."""
    from lossatlas.lab.commands.losses import simulate

    return simulate


@command("env")
def _env() -> Callable[..., Any]:
    """Print what computes here: versions, processor, threads, and whether the fused kernels are used."""
    from lossatlas.lab.commands.environment import env

    return env
