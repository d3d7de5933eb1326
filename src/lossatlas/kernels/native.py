"""The compiled module: whether it is there, when it is used, and how a kernel is called."""

import contextlib
import importlib
import math
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)
"""What kernels read, in the order of `DType` in native/kernels.hpp."""

INPUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What kernels compute gradients of: in float32, whatever the dtype. Double precision is the twins'."""

OTHER_DTYPES = tuple(dtype for dtype in DTYPES if dtype != torch.float64)

MAX_AXES = 8

PLAIN = (Tensor, nn.Parameter)
"""What kernels read; subclasses see the operators of PyTorch instead."""


def _load() -> tuple[ModuleType | None, str]:
    """Return the compiled module, or None and the reason why it is not used."""
    if os.environ.get("LOSSATLAS_KERNELS") == "0":
        return None, "switched off by LOSSATLAS_KERNELS=0"
    try:
        native = importlib.import_module("lossatlas.kernels._native")
    except ModuleNotFoundError:
        return None, "not built for this Python: there was no C++20 compiler when lossatlas was installed"
    except ImportError as error:
        return None, f"built for another system ({error})"
    native.set_dtypes(DTYPES)
    return native, ""


module, _reason = _load()
_enabled = module is not None


class Status(NamedTuple):
    """What computes the losses that have a kernel."""

    kernels: bool
    """Whether kernels do; otherwise PyTorch does."""
    reason: str
    """Why not, if not."""
    instruction_set: str
    """The one that the kernels use, ``""`` without kernels."""
    threads: int
    """How many threads they use, which is as many as torch is set to."""


def status() -> Status:
    """Return whether kernels are used, or why not."""
    instruction_set = module.instruction_set() if module is not None else ""
    return Status(_enabled, _reason, instruction_set, torch.get_num_threads())


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Compute everything through PyTorch inside a ``with`` block, for tests and benchmarks."""
    global _enabled  # noqa: PLW0603
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def usable(input: Tensor, *others: Tensor | None) -> bool:
    """Whether kernels compute the gradient of `input`, with these other tensors held constant.

    They do on the CPU, from float32, bfloat16 and float16. The twin is used for gradients of the other tensors, under
    `torch.func` transforms and forward-mode differentiation, for subclasses of tensors, for no elements, and in
    `torch.export`, whose programs shall run where there is no lossatlas.
    """
    if not _enabled or torch.compiler.is_exporting():
        return False
    if not (_plain(input) and input.dtype in INPUT_DTYPES and input.ndim <= MAX_AXES and input.numel() > 0):
        return False
    grad = torch.is_grad_enabled()
    for tensor in others:
        if tensor is None:
            continue
        if not (_plain(tensor) and tensor.dtype in OTHER_DTYPES) or (grad and tensor.requires_grad):
            return False
    return not _transformed()


def usable_float32(*tensors: Tensor) -> bool:
    """Whether kernels that know float32 alone, and no gradients, take these tensors: at least one number in each."""
    return all(tensor.dtype == torch.float32 and tensor.numel() > 0 for tensor in tensors) and usable(*tensors)


def _plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and type(tensor) in PLAIN and tensor.layout == torch.strided


def _transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def ignored_number(ignored: float | None) -> float:
    """Return what kernels compare targets with to find what is left out: NaN, which no target equals, for None."""
    return math.nan if ignored is None else ignored


_library = torch.library.Library("lossatlas", "DEF")


def define(schema: str, function: Callable[..., Any], autograd: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Register an operator of the namespace ``lossatlas``.

    Args:
        schema: name, arguments and results.
        function: makes the results and calls `run`, which does nothing while shapes are traced.
        autograd: what is called instead where gradients may be needed; None for an operator without any.

    Returns:
        What computes it where no gradients are needed: `function` itself, unless something must see the operator. The
        dispatcher takes longer than a kernel takes for a few hundred numbers.
    """
    _library.define(schema)
    name = schema.partition("(")[0]
    _library.impl(name, function, "CPU")
    torch.library.register_fake(f"lossatlas::{name}", function, lib=_library)
    if autograd is not None:
        _library.impl(name, autograd, "Autograd")
    operator = getattr(torch.ops.lossatlas, name).default

    def below_autograd(first: Tensor, *rest: Any) -> Any:
        if type(first) in PLAIN and torch._C._len_torch_dispatch_stack() == 0:
            return function(first, *rest)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(first, *rest)

    return below_autograd


def run(kernel: str, tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...]) -> None:
    """Call a kernel on the memory of tensors, by as many threads as torch is set to.

    Args:
        kernel: its name in native/kernels.
        tensors: inputs and results, None for what is not given.
        numbers: everything else.
    """
    if isinstance(tensors[0], FakeTensor):
        return
    assert module is not None
    module.call(kernel, torch.get_num_threads(), tensors, numbers)
