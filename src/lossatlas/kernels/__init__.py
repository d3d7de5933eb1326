"""Fused CPU kernels behind `torch.library` operators.

Every kernel computes what some PyTorch code of the library computes, its twin, which stays the definition. The library
asks `usable` and calls an operator or the twin; its users never choose. Setting the environment variable
``LOSSATLAS_KERNELS=0`` before the first import switches all kernels off, for debugging.

One file for each family holds its operators: `elementwise`, ... Their code is in ``native/``.
"""

from lossatlas.kernels.native import Status, disabled, status, usable

__all__ = ["Status", "disabled", "status", "usable"]
