"""Optimal one-to-one matching, by scipy."""

import torch
from torch import Tensor


def least_cost_pairs(cost: Tensor, user: str) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the pairs that cost least together; as many as the shorter side has.

    Args:
        cost: ``(R, C)``, finite.
        user: what needs the matching, for the message.

    Returns:
        Rows in ascending order and their columns, int64 on the CPU.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(f"`{user}` needs scipy, which comes with the extra: pip install 'lossatlas[lab]'") from error
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.as_tensor(rows, dtype=torch.int64), torch.as_tensor(columns, dtype=torch.int64)
