"""What a comparison compares: losses named on the command line, checked against the catalogue.

``box=giou,ciou,focal_eiou(gamma=0.5)`` names the losses of one slot of an objective. The text is parsed as Python's
syntax for calls but never evaluated: options are literals, and a bare word is a string.
"""

import ast
import difflib
import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lossatlas.losses.catalog import CATALOG, InputKind, LossEntry

_DENSE_SLOTS = {
    "box": frozenset({"boxes", "elementwise"}),
    "cls": frozenset({"binary_logits", "quality_logits"}),
}

SLOTS: Mapping[str, Mapping[str, frozenset[str]]] = {"fcos": _DENSE_SLOTS, "retinanet": _DENSE_SLOTS}
"""For each objective its slots, and for each slot the kinds of input that a loss in it may take."""

CONTRACT_ARGUMENTS = frozenset({"weight", "reduction", "normalizer", "ignore_index"})
"""Arguments that the objective sets itself, so that they are no options of a variant."""


class ArgumentError(ValueError):
    """An argument of a comparison that cannot be used; the message says what would be valid."""


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

    def build(self) -> Callable[..., Tensor]:
        """Return the loss function with the options bound.

        Losses whose module keeps a state, such as a running mean, are taken in their form without one.
        """
        return functools.partial(self.entry.function, **self.options) if self.options else self.entry.function


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared.

    Args:
        name: how it is called in tables and reports.
        losses: the slots that it fills, each with the text of its loss; the other slots keep the objective's own.
    """

    name: str
    losses: Mapping[str, str]


def parse_variants(vary: Sequence[str], objective: str) -> tuple[Variant, ...]:
    """Read the ``--vary`` arguments of a comparison.

    Args:
        vary: texts ``SLOT=LOSS,LOSS(option=value),...``, one for each slot; several give every combination.
        objective: name of the objective that the losses shall fit.

    Returns:
        The variants; the first, made of the first loss of every slot, is the baseline. Without texts the only variant
        is the objective with its own losses.

    Raises:
        ArgumentError: text that cannot be read, or an unknown objective, slot, loss or option; the message lists the
            valid ones.

    Example:
        >>> [variant.name for variant in parse_variants(["box=giou,focal_eiou(gamma=1.0)"], "fcos")]
        ['giou', 'focal_eiou(gamma=1.0)']
        >>> [variant.name for variant in parse_variants(["box=giou,ciou", "cls=sigmoid_focal"], "fcos")]
        ['box=giou cls=sigmoid_focal', 'box=ciou cls=sigmoid_focal']
    """
    slots = _slots(objective)
    choices: dict[str, list[LossSpec]] = {}
    for text in vary:
        slot, separator, losses = text.partition("=")
        slot = slot.strip()
        if not separator or not slot.isidentifier():
            raise ArgumentError(f"cannot read --vary {text!r}: expected SLOT=LOSS,LOSS,... such as box=giou,ciou")
        if slot not in slots:
            raise ArgumentError(_unknown("slot", slot, slots, f"of objective {objective}"))
        if slot in choices:
            raise ArgumentError(f"--vary names the slot {slot} twice: write its losses in one list, {slot}=LOSS,LOSS")
        choices[slot] = parse_losses(losses, slot, objective)
    if not choices:
        return (Variant(objective, {}),)
    variants = []
    for combination in itertools.product(*choices.values()):
        texts = dict(zip(choices, map(str, combination), strict=True))
        name = " ".join(f"{slot}={text}" for slot, text in texts.items()) if len(texts) > 1 else str(combination[0])
        variants.append(Variant(name, texts))
    return tuple(variants)


def parse_losses(text: str, slot: str, objective: str) -> list[LossSpec]:
    """Read the losses of one slot: names separated by commas, each with options in brackets where it has any.

    Args:
        text: such as ``giou,ciou,focal_eiou(gamma=0.5)``.
        slot: name of the slot that the losses shall fit.
        objective: name of the objective that the slot belongs to.

    Returns:
        The losses in the order of the text, at least one.

    Raises:
        ArgumentError: text that cannot be read, a loss or option that is unknown, or a loss that is named twice.

    Example:
        >>> [str(spec) for spec in parse_losses("iou(mode=linear), ciou_loss", "box", "fcos")]
        ['iou(mode=linear)', 'ciou']
    """
    losses = slot_losses(slot, objective)
    where = f"slot {slot} of {objective}"
    specs = [_read_loss(node, losses, where) for node in _read_list(text)]
    seen: dict[object, LossSpec] = {}
    for spec in specs:
        earlier = seen.setdefault(spec.effect, spec)
        if earlier is not spec:
            raise ArgumentError(f"{slot}={text} names the same loss twice: {earlier} and {spec}")
    return specs


def resolve_loss(text: str, slot: str, objective: str) -> Callable[..., Tensor]:
    """Return the loss that a text such as ``focal_eiou(gamma=0.5)`` names, with its options bound.

    Args:
        text: one loss, as `Variant.losses` holds it.
        slot: name of the slot that it shall fit.
        objective: name of the objective that the slot belongs to.

    Returns:
        A function of the library, or a `functools.partial` of it.

    Raises:
        ArgumentError: text that names no loss or several, or one that does not fit.

    Example:
        >>> resolve_loss("focal_eiou(gamma=1.0)", "box", "fcos").keywords
        {'gamma': 1.0}
    """
    specs = parse_losses(text, slot, objective)
    if len(specs) != 1:
        raise ArgumentError(f"slot {slot} takes one loss, but got {text!r}")
    return specs[0].build()


def slot_losses(slot: str, objective: str) -> dict[str, LossEntry]:
    """Return the losses that fit a slot, by the name that a variant gives them.

    Example:
        >>> "giou" in slot_losses("box", "fcos"), "giou" in slot_losses("cls", "fcos")
        (True, False)
    """
    slots = _slots(objective)
    if slot not in slots:
        raise ArgumentError(_unknown("slot", slot, slots, f"of objective {objective}"))
    kinds = slots[slot]
    return {name: entry for name, entry in _short_names().items() if entry.input_kind in kinds and _fits(entry)}


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
        for name, parameter in inspect.signature(entry.function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is parameter.empty
        and _takes_tensor(parameter.annotation)
    ]


def parse_loss(text: str) -> LossSpec:
    """Read any loss of the catalogue: named in full, with ``_loss`` left off or by its module form, with options.

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
    nodes = _read_list(text)
    if len(nodes) != 1:
        raise ArgumentError(f"expected the name of one loss, but got {text!r}")
    by_name = _short_names()
    by_class = {entry.module.__name__: entry for entry in by_name.values()}
    if text.strip() in by_class:
        return LossSpec(by_class[text.strip()], {})
    return _read_loss(nodes[0], by_name, "")


def simulated_losses(text: str) -> dict[str, Callable[..., Tensor]]:
    """Read the box losses of a simulation.

    Args:
        text: such as ``iou,giou,alpha_iou(alpha=3.0)``. ``iou`` without a mode is 1 - IoU, as in the DIoU paper.

    Returns:
        Losses by name.

    Raises:
        ArgumentError: text that cannot be read, or a loss or option that is unknown; the message lists the valid ones.

    Example:
        >>> list(simulated_losses("iou,siou(theta=4.0)"))
        ['iou', 'siou(theta=4.0)']
    """
    losses = {name: entry for name, entry in _short_names().items() if entry.input_kind == "boxes" and _fits(entry)}
    specs = [_read_loss(node, losses, "a simulation of boxes") for node in _read_list(text)]
    return {
        str(spec): functools.partial(
            spec.entry.function, **({"mode": "linear"} if str(spec) == "iou" else spec.options)
        )
        for spec in specs
    }


def _short_names() -> dict[str, LossEntry]:
    return {name.removesuffix("_loss"): entry for name, entry in CATALOG.items()}


def _slots(objective: str) -> Mapping[str, frozenset[str]]:
    if objective not in SLOTS:
        raise ArgumentError(_unknown("objective", objective, SLOTS))
    return SLOTS[objective]


def _read_list(text: str) -> list[ast.expr]:
    try:
        tree = ast.parse(f"({text},)", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ArgumentError(_unreadable(text)) from error
    if not isinstance(tree, ast.Tuple):
        raise ArgumentError(_unreadable(text))
    return tree.elts


def _read_loss(node: ast.expr, losses: Mapping[str, LossEntry], where: str) -> LossSpec:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ArgumentError(_unreadable(ast.unparse(node)))
    name = call.func.id
    entry = losses.get(name.removesuffix("_loss"))
    if entry is None:
        if name.removesuffix("_loss") in _short_names():
            raise ArgumentError(f"loss {name!r} does not fit {where}; valid: {', '.join(losses)}")
        raise ArgumentError(_unknown("loss", name, losses, f"for {where}" if where else ""))
    options = {str(keyword.arg): _read_option(entry, str(keyword.arg), keyword.value) for keyword in call.keywords}
    spec = LossSpec(entry, options)
    missing = [name for name, default in (loss_options(entry) | options).items() if default is inspect.Parameter.empty]
    if missing:
        raise ArgumentError(
            f"loss {spec.short_name} needs {' and '.join(missing)}: {spec.short_name}({missing[0]}=...)"
        )
    _try_out(spec)
    return spec


def _read_option(entry: LossEntry, name: str, node: ast.expr) -> Any:
    parameters = _option_parameters(entry)
    loss = entry.name.removesuffix("_loss")
    if name not in parameters:
        if not parameters:
            raise ArgumentError(f"loss {loss} has no options, but got {name!r}")
        raise ArgumentError(_unknown("option", name, parameters, f"of loss {loss}"))
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
        for name, parameter in inspect.signature(entry.function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and name not in CONTRACT_ARGUMENTS
        and not _takes_tensor(parameter.annotation)
    }


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


def _example(kind: InputKind) -> tuple[Tensor, Tensor, dict[str, Any]] | None:
    """Return what an objective gives to a loss of this kind, in small; None for kinds that fit no slot."""
    factor = torch.ones(1)
    match kind:
        case "boxes":
            return torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), {"weight": factor}
        case "elementwise":
            return torch.full((1, 4), 0.5), torch.zeros(1, 4), {"weight": factor[:, None]}
        case "binary_logits" | "quality_logits":
            target = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
            return torch.zeros(1, 2, 2), target, {"weight": factor[:, None, None], "ignore_index": -1}
        case _:
            return None


def _try_out(spec: LossSpec) -> None:
    """Let the loss itself check the range of its options, called as an objective calls it."""
    example = _example(spec.entry.input_kind)
    if example is None or required_tensors(spec.entry):
        return
    input, target, arguments = example
    try:
        spec.build()(input, target, reduction="mean", normalizer=1.0, **arguments)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"loss {spec}: {error}") from error


@functools.cache
def _fits(entry: LossEntry) -> bool:
    """Whether an objective can call this loss: some need more than a prediction and its target."""
    if required_tensors(entry):
        return False
    if inspect.Parameter.empty in loss_options(entry).values():
        return True
    try:
        _try_out(LossSpec(entry, {}))
    except ArgumentError:
        return False
    return True


def _literal(value: object) -> str:
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def _unreadable(text: str) -> str:
    return f"cannot read {text!r}: expected LOSS or LOSS(option=value, ...), several separated by commas"


def _unknown(what: str, name: str, valid: Iterable[str], where: str = "") -> str:
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    place = f" {where}" if where else ""
    hint = f"; did you mean {close[0]}? Valid" if close else "; valid"
    return f"unknown {what} {name!r}{place}{hint}: {', '.join(valid)}"


def folder_name(variant: str, taken: Collection[str]) -> str:
    """Return a folder name for a variant that needs no quoting in a shell and is not taken.

    Example:
        >>> folder_name("focal_eiou(gamma=0.5)", set())
        'focal_eiou-gamma-0.5'
    """
    base = re.sub(r"[^A-Za-z0-9_.+]+", "-", variant).strip("-.")[:80]
    candidates = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in candidates if name not in taken)
