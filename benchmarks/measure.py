"""How one case is measured: in turns, against the time that moving its memory takes, each in a process of its own."""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Contender, Inputs
from lossatlas import kernels


def contenders(case: Case) -> dict[str, Callable[[], Contender]]:
    """Return what loads ours, the PyTorch form of ours, and the peers."""

    def twin(*inputs: Tensor) -> Any:
        with kernels.disabled():
            return case.ours(*inputs)

    return {"ours": lambda: case.ours, "ours in PyTorch": lambda: twin, **case.peers}


def installed(case: Case) -> dict[str, Contender]:
    """Return the contenders whose library is installed."""
    found = {}
    for name, load in contenders(case).items():
        try:
            found[name] = load()
        except ImportError as error:
            print(f"  {name} is left out: {error}")
    return found


def draw(case: Case, size: int) -> Inputs:
    """Draw the inputs; the gradient of the first is computed."""
    input, *rest = case.sample(torch.Generator().manual_seed(0), size)
    return input.requires_grad_(case.backward), *rest


def once(case: Case, contender: Contender, inputs: Inputs) -> Callable[[], None]:
    """Return what runs a contender once, forward and, if the case has gradients, backward."""

    def run() -> None:
        for value in inputs:
            value.grad = None
        result = contender(*inputs)
        if case.backward:
            result.backward()

    return run


def stream(case: Case, inputs: Inputs) -> Callable[[], Any]:
    """Return what reads every input once and writes the gradient, or what is drawn, once: nothing can be faster."""
    if case.drawn:
        return case.ours(*inputs).zero_
    values = [value.detach().flatten() for value in inputs]
    result = torch.empty_like(values[0])
    same_size = [value for value in values[1:] if value.numel() == values[0].numel()]
    others = [value for value in values[1:] if value.numel() != values[0].numel()]

    def run() -> None:
        if same_size:
            torch.add(values[0], same_size[0], out=result)
        else:
            torch.mul(values[0], 2, out=result)
        for value in (*same_size[1:], *others):
            value.max()

    return run


def times(case: Case, size: int, seconds: float) -> dict[str, dict[str, float]]:
    """Run all contenders in turns for some seconds each; the machine's speed drifts, so that only turns compare.

    Returns:
        For each contender, and for ``"streaming"``, the least and the median of the times in milliseconds, and their
        number.
    """
    inputs = draw(case, size)
    turns: dict[str, Callable[[], Any]] = {"streaming": stream(case, inputs)}
    turns |= {name: once(case, contender, inputs) for name, contender in installed(case).items()}
    found: dict[str, list[float]] = {name: [] for name in turns}
    for run in turns.values():
        run()
    spent = 0.0
    while (spent < seconds * len(turns) or len(found["ours"]) < 3) and len(found["ours"]) < 200:
        for name, run in turns.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
            spent += found[name][-1]
    return {
        name: {"least": 1e3 * min(runs), "median": 1e3 * statistics.median(runs), "runs": len(runs)}
        for name, runs in found.items()
    }


def memory(case: Case, size: int, contender: str) -> float:
    """Return the peak over the inputs, in units of what is large; in a fresh process, since peaks never go down."""
    inputs = draw(case, size)
    function = contenders(case)[contender]()
    run, warm = once(case, function, inputs), once(case, function, draw(case, case.sizes[0]))
    warm()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    # Kibibytes on Linux.
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return peak / (case.ours(*inputs) if case.drawn else inputs[0]).nbytes


def measure(case: Case, size: int, seconds: float) -> dict[str, Any]:
    """Return the times of one case at one size with everything that a ratio needs."""
    return {
        "case": case.name,
        "size": size,
        "elements": draw(case, size)[0].numel(),
        "times": times(case, size, seconds),
    }
