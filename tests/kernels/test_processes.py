"""Kernels in other threads and processes, beside torch's own threads."""

import concurrent.futures
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lossatlas.losses import sigmoid_focal_loss
from lossatlas.targets import COCO, KeypointHeatmaps, PartAffinityFields
from tests.kernels.case import needs_kernels

pytestmark = needs_kernels

SIZE = 100_000
"""Elements of several tasks, so that threads are used."""

HEATMAPS, FIELDS = KeypointHeatmaps(sigma=2.0), PartAffinityFields(COCO)


def results(seed: int) -> Tensor:
    """Compute a loss, its gradient and maps by two threads of the kernels; torch's own are one for its operations."""
    generator = torch.Generator().manual_seed(seed)
    torch.set_num_threads(1)
    x = torch.randn(SIZE, generator=generator).requires_grad_()
    target = torch.zeros(SIZE)
    keypoints = torch.rand(4, 2, 17, 3, generator=generator) * 64
    torch.set_num_threads(2)
    value = sigmoid_focal_loss(x, target, reduction="sum")
    (gradient,) = torch.autograd.grad(value, x)
    maps, fields = HEATMAPS(keypoints, (64, 64), 1).heatmaps, FIELDS(keypoints, (64, 64), 1)
    torch.set_num_threads(1)
    return torch.stack((value.detach(), gradient.sum(), maps.sum(), fields.abs().sum()))


class Losses(Dataset[Tensor]):
    """Computes losses and targets in the process of a data loader."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return results(index)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run_in_a_fresh_process(function: Callable[..., None], *arguments: str) -> None:
    """Run a function in a new interpreter.

    torch's autograd refuses to work in forked children of a process in which it has ever started a thread of its own,
    as tests before these may have. Where there is a CUDA device it starts threads at once.
    """
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


forks = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(),
    reason="this system does not fork, or torch's autograd has started threads for its CUDA devices",
)


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn"])
def test_workers_of_a_data_loader(method: str) -> None:
    run_in_a_fresh_process(load_by_workers, method)


def load_by_workers(method: str) -> None:
    expected = torch.stack([results(index) for index in range(len(Losses()))])
    loader = DataLoader(
        Losses(), batch_size=4, num_workers=1, multiprocessing_context=method, persistent_workers=True, timeout=60
    )
    for _ in range(2):
        (found,) = loader
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(results(0), expected[0], rtol=1e-6, atol=0)


@forks
def test_a_child_that_is_forked_while_kernels_run() -> None:
    """The locks that another thread holds at that moment are never released in the child."""
    run_in_a_fresh_process(fork_while_kernels_run)


def fork_while_kernels_run() -> None:
    expected = results(0)
    stop = False

    def work() -> None:
        while not stop:
            results(0)

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        busy = [executor.submit(work) for _ in range(2)]
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    os._exit(0 if torch.equal(results(0), expected) else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop = True
    for thread in busy:
        thread.result()


def test_several_threads_of_python_at_once() -> None:
    expected = [results(index) for index in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        for _ in range(3):
            for found, value in zip(executor.map(results, range(8)), expected, strict=True):
                torch.testing.assert_close(found, value, rtol=1e-6, atol=0)


def test_beside_the_threads_of_torch() -> None:
    """torch's operations between, by two threads of its own."""
    torch.set_num_threads(2)
    x = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values = []
    for _ in range(20):
        value = sigmoid_focal_loss(x * 2, torch.zeros(SIZE)) * 2
        (gradient,) = torch.autograd.grad(value, x)
        values.append(torch.stack((value.detach(), (gradient * x.detach()).sum())))
    assert all(torch.equal(value, values[0]) for value in values)
