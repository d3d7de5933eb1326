"""``lossatlas env``."""

import typer

from lossatlas._version import __version__


def env() -> None:
    """Print what computes here: versions, processor, threads, and whether the fused kernels are used."""
    import platform

    import torch

    from lossatlas import kernels

    status = kernels.status()
    instead = f"PyTorch only: the kernels are {status.reason}"
    lines = {
        "lossatlas": __version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cuda": torch.version.cuda if torch.cuda.is_available() else "none",
        "losses": f"fused kernels ({status.instruction_set}) on the CPU" if status.kernels else instead,
        "threads": str(status.threads),
    }
    for name, value in lines.items():
        typer.echo(f"{name:10} {value}")
