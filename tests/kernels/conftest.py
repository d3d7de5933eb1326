"""What the tests of kernels run with: every instruction set, any number of threads."""

from collections.abc import Callable, Iterator

import pytest
import torch

from lossatlas.kernels import native


@pytest.fixture(params=native.module.instruction_sets() if native.module else ["none"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test with each instruction set of this processor."""
    assert native.module is not None
    best = native.module.instruction_set()
    native.module.use_instruction_set(request.param)
    yield request.param
    native.module.use_instruction_set(best)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
