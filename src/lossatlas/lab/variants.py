"""What a comparison compares: losses of the slots of an objective, such as ``box=giou,ciou,focal_eiou(gamma=0.5)``."""

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lossatlas.lab.errors import ArgumentError, unknown
from lossatlas.lab.loss_specs import LossSpec, fitting_losses, read_losses, short_names
from lossatlas.lab.registry import find_objective
from lossatlas.lab.slots import BOX, Slot
from lossatlas.losses.catalog import LossEntry


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
    find_objective(objective)
    choices: dict[str, list[LossSpec]] = {}
    for text in vary:
        slot, separator, losses = text.partition("=")
        slot = slot.strip()
        if not separator or not slot.isidentifier():
            raise ArgumentError(f"cannot read --vary {text!r}: expected SLOT=LOSS,LOSS,... such as box=giou,ciou")
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
    specs = read_losses(text, _slot(slot, objective), f"slot {slot} of {objective}")
    seen: dict[object, LossSpec] = {}
    for spec in specs:
        earlier = seen.setdefault(spec.effect, spec)
        if earlier is not spec:
            raise ArgumentError(f"{slot}={text} names the same loss twice: {earlier} and {spec}")
    return specs


def resolve_loss(text: str, slot: str, objective: str, num_classes: int) -> Callable[..., Any]:
    """Return the loss that a text such as ``focal_eiou(gamma=0.5)`` names, with its options bound.

    Args:
        text: one loss, as `Variant.losses` holds it.
        slot: name of the slot that it shall fit.
        objective: name of the objective that the slot belongs to.
        num_classes: of the data, for losses that keep something of each class.

    Returns:
        A function of the library or a `functools.partial` of it; of a loss that keeps a state, a new module.

    Raises:
        ArgumentError: text that names no loss or several, or one that does not fit.

    Example:
        >>> resolve_loss("focal_eiou(gamma=1.0)", "box", "fcos", num_classes=3).keywords
        {'gamma': 1.0}
    """
    specs = parse_losses(text, slot, objective)
    if len(specs) != 1:
        raise ArgumentError(f"slot {slot} takes one loss, but got {text!r}")
    return specs[0].build(_slot(slot, objective).count_classes(num_classes))


def slot_losses(slot: str, objective: str) -> dict[str, LossEntry]:
    """Return the losses that fit a slot, by the name that a variant gives them.

    Example:
        >>> "giou" in slot_losses("box", "fcos"), "giou" in slot_losses("cls", "fcos")
        (True, False)
    """
    return fitting_losses(_slot(slot, objective))


def _slot(name: str, objective: str) -> Slot:
    slots = find_objective(objective).slots
    if name not in slots:
        raise ArgumentError(unknown("slot", name, slots, f"of objective {objective}"))
    return slots[name]


def simulated_losses(text: str) -> dict[str, Callable[..., Any]]:
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
    specs = read_losses(text, replace(BOX, kinds=frozenset({"boxes"})), "a simulation of boxes")
    plain = {"iou": LossSpec(short_names()["iou"], {"mode": "linear"})}
    return {str(spec): plain.get(str(spec), spec).function() for spec in specs}


def folder_name(variant: str, taken: Collection[str]) -> str:
    """Return a folder name for a variant that needs no quoting in a shell and is not taken.

    Example:
        >>> folder_name("focal_eiou(gamma=0.5)", set())
        'focal_eiou-gamma-0.5'
    """
    base = re.sub(r"[^A-Za-z0-9_.+]+", "-", variant).strip("-.")[:80]
    candidates = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in candidates if name not in taken)
