"""Losses named as text, such as ``focal_eiou(gamma=0.5)``, checked against the catalogue.

The text is parsed as Python's syntax for calls but never evaluated: options are literals, and a bare word is a string.
"""

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lossatlas.lab.errors import ArgumentError, unknown
from lossatlas.lab.slots import SLOTS, TRIAL_CLASSES, Slot
from lossatlas.losses.catalog import CATALOG, LossEntry

CONTRACT_ARGUMENTS = frozenset({"weight", "reduction", "normalizer", "ignore_index"})
"""Arguments that the objective sets itself, so that they are no options of a variant."""


@dataclass(frozen=True)
class LossSpec:
    """One loss with its options, as a variant names it.

    Args:
        entry: the loss in the catalogue.
        options: the arguments that differ from its defaults, or that were given.
    """

    entry: LossEntry
    options: Mapping[str, Any]

    @property
    def short_name(self) -> str:
        """Name of the function without ``_loss``."""
        return self.entry.name.removesuffix("_loss")

    @property
    def effect(self) -> tuple[str, tuple[tuple[str, Any], ...]]:
        """What distinguishes this loss from another: its name and the value of every option, given or default."""
        return self.entry.name, tuple((loss_options(self.entry) | dict(self.options)).items())

    def __str__(self) -> str:
        options = ", ".join(f"{name}={_literal(value)}" for name, value in self.options.items())
        return f"{self.short_name}({options})" if options else self.short_name

    def build(self, num_classes: int) -> Callable[..., Any]:
        """Return the loss as it is trained: of one that keeps a state a module, of any other its function.

        Args:
            num_classes: number of classes, for the losses that keep something of each.
        """
        if self.entry.stateful:
            needed = {"num_classes": num_classes} if "num_classes" in _parameters(self.entry.module) else {}
            module: Callable[..., Any] = self.entry.module(**needed, **self.options)
            return module
        return self.function()

    def function(self) -> Callable[..., Any]:
        """Return the loss function with the options bound, without the state that a module may keep.

        Raises:
            ArgumentError: options of the state alone.
        """
        of_state = [name for name in self.options if name not in _parameters(self.entry.function)]
        if of_state:
            raise ArgumentError(
                f"{of_state[0]} is an option of {self.entry.module.__name__}, whose state only training gives; "
                f"{self.entry.name} has none"
            )
        return functools.partial(self.entry.function, **self.options) if self.options else self.entry.function


def parse_loss(text: str) -> LossSpec:
    """Read any loss of the catalogue: named in full, with ``_loss`` left off or by its module form, with options.

    Options that the loss needs may be missing.

    Args:
        text: such as ``giou``, ``GIoULoss`` or ``focal_eiou(gamma=1.0)``.

    Returns:
        The loss with its options.

    Raises:
        ArgumentError: text that cannot be read, or a loss or option that is unknown; the message lists the valid ones.

    Example:
        >>> str(parse_loss("GIoULoss")), str(parse_loss("iou_loss(mode=linear)"))
        ('giou', 'iou(mode=linear)')
    """
    by_name = short_names()
    by_class = {entry.module.__name__: entry for entry in by_name.values()}
    if text.strip() in by_class:
        return LossSpec(by_class[text.strip()], {})
    nodes = _read_list(text)
    if len(nodes) != 1:
        raise ArgumentError(f"expected the name of one loss, but got {text!r}")
    return _read_loss(nodes[0], by_name, "")


def read_losses(text: str, slot: Slot, where: str) -> list[LossSpec]:
    """Read losses separated by commas.

    Args:
        text: such as ``giou,focal_eiou(gamma=0.5)``.
        slot: what they shall fit.
        where: what they are for, in an error.

    Returns:
        The losses in the order of the text, at least one.

    Raises:
        ArgumentError: text that cannot be read, or a loss or option that is unknown; the message lists the valid ones.
    """
    losses = fitting_losses(slot)
    specs = [_read_loss(node, losses, where, slot) for node in _read_list(text)]
    for spec in specs:
        missing = _missing_options(spec)
        if missing:
            raise ArgumentError(
                f"loss {spec.short_name} needs {' and '.join(missing)}: {spec.short_name}({missing[0]}=...)"
            )
    return specs


def loss_options(entry: LossEntry) -> dict[str, Any]:
    """Return the hyper-parameters of a loss that a variant may set, with their defaults.

    Example:
        >>> loss_options(CATALOG["focal_eiou_loss"])
        {'gamma': 0.5, 'normalize_weights': False}
    """
    return {name: parameter.default for name, parameter in _option_parameters(entry).items()}


def required_tensors(entry: LossEntry) -> list[str]:
    """Return the tensors that a loss cannot do without, beside input and target.

    Example:
        >>> required_tensors(CATALOG["giou_loss"])
        []
    """
    return [
        name
        for name, parameter in _parameters(entry.function).items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is parameter.empty
        and _takes_tensor(parameter.annotation)
    ]


def short_names() -> dict[str, LossEntry]:
    """Return every loss by its name without ``_loss``."""
    return {name.removesuffix("_loss"): entry for name, entry in CATALOG.items()}


def fitting_losses(slot: Slot) -> dict[str, LossEntry]:
    """Return the losses that fit a slot, by their short names.

    Example:
        >>> from lossatlas.lab.slots import BOX
        >>> "giou" in fitting_losses(BOX), "sigmoid_focal" in fitting_losses(BOX)
        (True, False)
    """
    return {name: entry for name, entry in short_names().items() if fits_slot(entry, slot)}


def _read_list(text: str) -> list[ast.expr]:
    try:
        tree = ast.parse(f"({text},)", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ArgumentError(_unreadable(text)) from error
    if not isinstance(tree, ast.Tuple):
        raise ArgumentError(_unreadable(text))
    return tree.elts


def _read_loss(node: ast.expr, losses: Mapping[str, LossEntry], where: str, slot: Slot | None = None) -> LossSpec:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ArgumentError(_unreadable(ast.unparse(node)))
    name = call.func.id
    entry = losses.get(name.removesuffix("_loss"))
    if entry is None:
        if name.removesuffix("_loss") in short_names():
            raise ArgumentError(f"loss {name!r} does not fit {where}; valid: {', '.join(losses)}")
        raise ArgumentError(unknown("loss", name, losses, f"for {where}" if where else ""))
    options = {str(keyword.arg): _read_option(entry, str(keyword.arg), keyword.value) for keyword in call.keywords}
    spec = LossSpec(entry, options)
    slot = slot or next((slot for slot in SLOTS if fits_slot(entry, slot)), None)
    if slot is not None and not _missing_options(spec):
        _try_out(spec, slot)
    return spec


def _missing_options(spec: LossSpec) -> list[str]:
    given = loss_options(spec.entry) | dict(spec.options)
    return [name for name, value in given.items() if value is inspect.Parameter.empty]


def _read_option(entry: LossEntry, name: str, node: ast.expr) -> Any:
    parameters = _option_parameters(entry)
    loss = entry.name.removesuffix("_loss")
    if name not in parameters:
        if not parameters:
            raise ArgumentError(f"loss {loss} has no options, but got {name!r}")
        raise ArgumentError(unknown("option", name, parameters, f"of loss {loss}"))
    try:
        value = node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"option {name} of loss {loss} must be a literal, but got {ast.unparse(node)!r}") from error
    annotation = parameters[name].annotation
    if not _accepts(annotation, value):
        raise ArgumentError(f"option {name} of loss {loss} must be {_expected(annotation)}, but got {value!r}")
    return value


def _option_parameters(entry: LossEntry) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in _parameters(entry.module if entry.stateful else entry.function).items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and name not in CONTRACT_ARGUMENTS
        and not _takes_tensor(parameter.annotation)
    }


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _takes_tensor(annotation: Any) -> bool:
    return any(isinstance(member, type) and issubclass(member, Tensor) for member in _members(annotation))


def _members(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _accepts(annotation: Any, value: object) -> bool:
    for member in _members(annotation):
        if typing.get_origin(member) is Literal:
            if value in typing.get_args(member):
                return True
        elif typing.get_origin(member) is tuple:
            parts = typing.get_args(member)
            if isinstance(value, tuple) and len(value) == len(parts) and all(map(_accepts, parts, value)):
                return True
        elif member is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif member is None or member is types.NoneType:
            if value is None:
                return True
        elif isinstance(member, type) and type(value) is member:
            return True
    return False


def _expected(annotation: Any) -> str:
    words: list[str] = []
    for member in _members(annotation):
        if typing.get_origin(member) is Literal:
            words.extend(str(choice) for choice in typing.get_args(member))
        elif typing.get_origin(member) is tuple:
            words.append(f"({', '.join(map(_expected, typing.get_args(member)))})")
        elif member in _WORDS:
            words.append(_WORDS[member])
    return " or ".join(words)


_WORDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a word",
    None: "None",
    types.NoneType: "None",
}


def _try_out(spec: LossSpec, slot: Slot) -> None:
    """Let the loss itself check the range of its options, called as an objective calls it."""
    try:
        slot.try_out(spec.build(TRIAL_CLASSES))
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"loss {spec}: {error}") from error


@functools.cache
def fits_slot(entry: LossEntry, slot: Slot) -> bool:
    """Whether a loss can be called in a slot; it may have to be told options first.

    Example:
        >>> from lossatlas.lab.slots import BOX
        >>> fits_slot(CATALOG["giou_loss"], BOX), fits_slot(CATALOG["kl_box_loss"], BOX)
        (True, False)
    """
    if entry.input_kind not in slot.kinds:
        return False
    if inspect.Parameter.empty in loss_options(entry).values():
        return not required_tensors(entry)
    try:
        _try_out(LossSpec(entry, {}), slot)
    except ArgumentError:
        return False
    return True


def _literal(value: object) -> str:
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def _unreadable(text: str) -> str:
    return f"cannot read {text!r}: expected LOSS or LOSS(option=value, ...), several separated by commas"
