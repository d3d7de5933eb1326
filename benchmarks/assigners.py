"""Memory and time of every assigner on one image: ``python -m benchmarks.assigners [predictions objects [names]]``."""

import sys
import time

import torch

from tests.assign.cases import CASES, crowded_scene
from tests.memory import PeakMemory


def main(predictions: str = "120000", objects: str = "1000", *names: str) -> None:
    """Print a line for each assigner: the most memory that it takes at once, and processor time.

    The memory is that of all tensors which its operators return; inputs count where they return views of them.
    """
    torch.set_num_threads(1)
    scene, target = crowded_scene(int(predictions), int(objects))
    pairs = len(scene.points) * int(objects)
    print(f"{len(scene.points)} predictions, {objects} objects; all pairs in float32 would be {pairs * 4 / 1e6:.0f} MB")
    for name, case in CASES.items():
        if case.pairwise or (names and name not in names):
            continue
        with PeakMemory() as memory:
            start = time.process_time()
            case.run(scene, target, None)
            seconds = time.process_time() - start
        print(f"{name:32} {memory.peak / 1e6:6.1f} MB {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
