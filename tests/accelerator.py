"""What the tests on an accelerator share."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map


def on_device(tree: Any) -> Any:
    """Return tuples, lists and dicts with their tensors moved to the accelerator."""
    return tree_map(lambda leaf: leaf.cuda() if isinstance(leaf, Tensor) else leaf, tree)
