"""Compare what the losses cost with what the same costs elsewhere: ``python -m benchmarks``, or ``make bench``.

All contenders of a case run in turns, in one process, on the same inputs. Times are given in multiples of the time that
reading the inputs and writing the gradient takes, measured in the same turns: a time alone says little, since the speed
of a machine drifts within minutes.

glibc maps allocations over 32 MB anew at every call and the kernel clears their pages, which costs more than most
losses and hides the difference between them. The table is measured with that threshold raised, for every contender; the
default is shown beside it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

TUNABLES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"
"""Keeps freed memory instead of returning it to the system."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="measure the cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each contender and size")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and the kernels")
    parser.add_argument("--largest", action="store_true", help="leave out the smaller sizes")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--resume", action="store_true", help="keep the cases that the folder has already")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(_job(json.loads(arguments.job))))
    else:
        _all(arguments)


def _job(job: dict[str, Any]) -> Any:
    import warnings

    import torch

    from benchmarks.cases import CASES
    from benchmarks.measure import measure, memory

    warnings.simplefilter("ignore")
    torch.set_num_threads(job["threads"])
    (case,) = [case for case in CASES if case.name == job["case"]]
    if "contender" in job:
        return memory(case, job["size"], job["contender"])
    return measure(case, job["size"], job["seconds"])


def _in_a_process(job: dict[str, Any], tuned: bool) -> Any:
    """Run a job in a fresh process, whose allocator is set up before it starts."""
    environment = dict(os.environ)
    # torch's waiting threads would otherwise keep the other cores from whoever runs next.
    environment.setdefault("GOMP_SPINCOUNT", "10000")
    environment["OMP_NUM_THREADS"] = str(job["threads"])
    if tuned:
        environment["GLIBC_TUNABLES"] = TUNABLES
    command = [sys.executable, "-m", "benchmarks", "--job", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr}")
    *notes, result = done.stdout.splitlines()
    for note in notes:
        print(note)
    return json.loads(result)


def _all(arguments: argparse.Namespace) -> None:
    import torch

    from benchmarks.cases import CASES
    from benchmarks.report import plot, table
    from lossatlas import __version__, kernels

    status = kernels.status()
    result: dict[str, Any] = {
        "lossatlas": __version__,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "kernels": status.instruction_set if status.kernels else f"none: {status.reason}",
        "threads": arguments.threads,
        "tunables": TUNABLES,
        "cases": [],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        result["cases"] = json.loads((arguments.out / "bench.json").read_text())["cases"]
    measured_before = {case["name"] for case in result["cases"]}
    for case in CASES:
        if arguments.only not in case.name or case.name in measured_before:
            continue
        print(f"{case.name} ...", flush=True)
        job = {"case": case.name, "threads": arguments.threads, "seconds": arguments.seconds}
        sizes = case.sizes[-1:] if arguments.largest else case.sizes
        measured = [_in_a_process(job | {"size": size}, tuned=True) for size in sizes]
        default = _in_a_process(job | {"size": case.sizes[-1]}, tuned=False)
        names = [name for name in measured[-1]["times"] if name != "streaming"]
        peak = {name: _in_a_process(job | {"size": case.sizes[-1], "contender": name}, tuned=False) for name in names}
        goals = {"limit": case.limit, "lead": case.lead, "memory": case.memory}
        result["cases"].append(
            {"name": case.name, "sizes": measured, "default": default, "memory": peak, "goals": goals}
        )
        # After every case, so that what was measured is there if a later one fails or is stopped.
        (arguments.out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
        (arguments.out / "bench.md").write_text(table(result))
    plot(result, arguments.out / "bench.svg")
    print(f"\n{table(result)}\nnumbers: {arguments.out / 'bench.json'}\nplot:    {arguments.out / 'bench.svg'}")


if __name__ == "__main__":
    main()
