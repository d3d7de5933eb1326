"""Memory and time of every assigner on one image: ``python -m benchmarks.assigners [predictions] [objects]``."""

import sys
import time

import torch

from tests.assign.cases import CASES, crowded_scene
from tests.memory import PeakMemory


def main(predictions: int = 120_000, objects: int = 1000) -> None:
    """Print a line for each assigner: the most memory that it takes at once, and processor time.

    The memory is that of all tensors which its operators return; inputs count where they return views of them.
    """
    torch.set_num_threads(1)
    scene, target = crowded_scene(predictions, objects)
    print(f"{len(scene.points)} predictions, {objects} objects; all pairs in float32 would be", end=" ")
    print(f"{len(scene.points) * objects * 4 / 1e6:.0f} MB")
    for name, case in CASES.items():
        if case.pairwise:
            continue
        with PeakMemory() as memory:
            start = time.process_time()
            case.run(scene, target, None)
            seconds = time.process_time() - start
        print(f"{name:32} {memory.peak / 1e6:6.1f} MB {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
