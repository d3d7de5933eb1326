"""The table and the plot of a run."""

from pathlib import Path
from typing import Any

COLUMNS = (
    "work",
    "contender",
    "× streaming, least",
    "median",
    "default allocator",
    "ours is faster by",
    "memory / input",
    "goal",
)


def ratio(times: dict[str, Any], name: str, kind: str = "least") -> float:
    """Return a time in multiples of the streaming limit of the same turns."""
    quotient: float = times[name][kind] / times["streaming"][kind]
    return quotient


def rows(case: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row for each contender, at the largest size."""
    times, default = case["sizes"][-1]["times"], case["default"]["times"]
    peers = [name for name in times if name not in ("streaming", "ours", "ours in PyTorch")]
    fastest = min(peers, key=lambda name: ratio(times, name), default="")
    goals = case["goals"]
    found: list[tuple[str, ...]] = []
    for name in times:
        if name == "streaming":
            continue
        goal = ""
        if name == "ours":
            goal = _goals(ratio(times, name), case["memory"][name], goals)
        elif name == fastest and goals["lead"]:
            goal = f"by {goals['lead']:g}× {_verdict(times[name]['least'] / times['ours']['least'] >= goals['lead'])}"
        lead = "" if name == "ours" else f"{times[name]['least'] / times['ours']['least']:.1f}×"
        found.append(
            (
                case["name"] if name == "ours" else "",
                name,
                f"{ratio(times, name):.1f}",
                f"{ratio(times, name, 'median'):.1f}",
                f"{ratio(default, name):.1f}",
                lead,
                f"{case['memory'][name]:.1f}",
                goal,
            )
        )
    return found


def _goals(cost: float, memory: float, goals: dict[str, Any]) -> str:
    found = []
    if goals["limit"]:
        found.append(f"{goals['limit']:g}× streaming {_verdict(cost <= goals['limit'])}")
    if goals["memory"]:
        found.append(f"{goals['memory']:g} of memory {_verdict(memory <= goals['memory'])}")
    return ", ".join(found)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def table(result: dict[str, Any]) -> str:
    """Return the run as a Markdown table."""
    lines = [
        f"lossatlas {result['lossatlas']}, torch {result['torch']}, {result['processor']}, kernels "
        f"{result['kernels']}, {result['threads']} threads, float32, forward and backward",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(row) + " |" for case in result["cases"] for row in rows(case)]
    lines += [
        "",
        f"Allocator: `GLIBC_TUNABLES={result['tunables']}` for every contender; beside it glibc's default.",
        "",
        "Where maps are drawn, they are what streaming writes, and the unit of memory.",
    ]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw, for each case, the multiples of the streaming limit against the size."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    cases = result["cases"]
    if not cases:
        return
    columns = min(3, len(cases))
    height = -(-len(cases) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(4.2 * columns, 3 * height), squeeze=False)
    for axis in axes.flat[len(cases) :]:
        axis.remove()
    for axis, case in zip(axes.flat, cases, strict=False):
        names = [name for name in case["sizes"][-1]["times"] if name != "streaming"]
        for name in names:
            elements = [measured["elements"] for measured in case["sizes"]]
            cost = [ratio(measured["times"], name) for measured in case["sizes"]]
            axis.plot(elements, cost, marker="o", markersize=3, label=name, linewidth=2 if name == "ours" else 1)
        axis.set(xscale="log", yscale="log", xlabel="elements", ylabel="× streaming")
        axis.set_title(case["name"], fontsize=9)
        # The sizes that were measured; the costs as plain numbers.
        axis.set_xticks(elements, [f"{number:,}" for number in elements], fontsize=7)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
