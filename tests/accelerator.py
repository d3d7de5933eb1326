"""What the tests on an accelerator share; without one they are left out."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)


def on_device(tree: Any) -> Any:
    """Return tuples, lists and dicts with their tensors moved to the accelerator."""
    return tree_map(lambda leaf: leaf.cuda() if isinstance(leaf, Tensor) else leaf, tree)
