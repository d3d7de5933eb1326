"""Memory and time of every assigner on one image: ``python -m benchmarks.assigners [predictions objects [names]]``."""

import contextlib
import sys
import time

import torch

from lossatlas import kernels
from tests.assign.cases import CASES, crowded_scene
from tests.memory import PeakMemory


def main(predictions: str = "120000", objects: str = "1000", *names: str) -> None:
    """Print a line for each assigner: the most memory that it takes at once, and processor time, also without kernels.

    The memory is that of all tensors which its operators return; inputs count where they return views of them.
    """
    torch.set_num_threads(1)
    scene, target = crowded_scene(int(predictions), int(objects))
    pairs = len(scene.points) * int(objects)
    print(f"{len(scene.points)} predictions, {objects} objects; all pairs in float32 would be {pairs * 4 / 1e6:.0f} MB")
    for name, case in CASES.items():
        if case.pairwise or (names and name not in names):
            continue
        line = f"{name:32}"
        for without in (contextlib.nullcontext, kernels.disabled):
            with without():
                with PeakMemory() as memory:
                    case.run(scene, target, None)
                start = time.process_time()
                case.run(scene, target, None)
                line += f" {memory.peak / 1e6:8.1f} MB {time.process_time() - start:8.3f} s"
        print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
