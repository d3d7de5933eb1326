"""The module forms: a loss function with its hyper-parameters bound.

``GIoULoss = module_form("GIoULoss", giou_loss)`` is all that a stateless loss needs. Losses with state are classes of
their own beside their functions.
"""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, cast, overload

from torch import Tensor, nn

P = ParamSpec("P")

Terms: TypeAlias = Tensor | tuple[Tensor, ...]
"""What a loss returns: a tensor, or a named tuple of several terms."""


class LossModule(nn.Module, Generic[P]):
    """A loss with its keyword arguments bound; what is given at the call wins over what was bound.

    Tensors among the arguments are buffers: they move with the module and are saved with it.
    """

    function: Callable[..., Terms]

    def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__()
        if args:
            raise TypeError(f"{type(self).__name__} takes keyword arguments only")
        parameters = inspect.signature(self.function).parameters.values()
        known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        for name, value in kwargs.items():
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no argument `{name}`; its arguments are {', '.join(known)}")
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        self._bound = tuple(kwargs)

    def forward(self, input: Tensor, *target: Tensor, **kwargs: Any) -> Terms:
        """Return the loss of `input` against `target`; keyword arguments are those of the function.

        What is measured of one distribution alone, such as its entropy, takes no target.
        """
        bound = {name: getattr(self, name) for name in self._bound}
        return type(self).function(input, *target, **(bound | kwargs))

    def extra_repr(self) -> str:
        """Return the bound arguments, as they were given."""
        values = ((name, getattr(self, name)) for name in self._bound)
        return ", ".join(
            f"{name}=tensor{tuple(value.shape)}" if isinstance(value, Tensor) else f"{name}={value!r}"
            for name, value in values
        )


class ModuleForm(Protocol[P]):
    """What `module_form` returns, for type checkers: a class that takes the function's keyword arguments."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> LossModule[P]:
        """Return the loss with these arguments bound."""
        ...


@overload
def module_form(name: str, function: Callable[Concatenate[Tensor, Tensor, P], Terms]) -> ModuleForm[P]: ...
@overload
def module_form(name: str, function: Callable[Concatenate[Tensor, P], Terms]) -> ModuleForm[P]: ...
def module_form(name: str, function: Callable[..., Terms]) -> ModuleForm[Any]:
    """Return the module class `name` whose instances call `function` with their arguments bound.

    Args:
        name: name of the class, as it is assigned.
        function: a loss, ``function(input, target, *, hyper-parameters, weight, reduction, normalizer)``.

    Returns:
        A subclass of `torch.nn.Module`.

    Example:
        >>> import torch
        >>> from lossatlas.losses import SmoothL1Loss
        >>> SmoothL1Loss(beta=0.5)(torch.tensor([0.25, 2.0]), torch.zeros(2))
        tensor(0.9062)
    """
    doc = f"{name}(**hyper-parameters): module form of `{function.__name__}`, with its keyword arguments bound."
    namespace = {"__doc__": doc, "__module__": function.__module__, "function": staticmethod(function)}
    return cast(ModuleForm[Any], type(name, (LossModule,), namespace))
