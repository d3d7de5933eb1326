"""The keypoint similarity against that of COCO's evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lossatlas import losses

faster_coco_eval = pytest.importorskip("faster_coco_eval")


def evaluated_similarity(input: Tensor, target: Tensor, visibility: Tensor, area: float) -> Any:
    """Let the evaluation compute the similarity of one person, and return it with the sigmas it takes."""
    flags = visibility.double()[:, None]
    truth: dict[str, Any] = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "area": area,
        "bbox": [0, 0, 100, 100],
    }
    truth["keypoints"] = torch.cat([target, flags], dim=1).flatten().tolist()
    truth["num_keypoints"] = int((visibility > 0).sum())
    found: dict[str, Any] = {"image_id": 1, "category_id": 1, "score": 1.0}
    found["keypoints"] = torch.cat([input, torch.ones_like(flags)], dim=1).flatten().tolist()
    images = [{"id": 1, "width": 100, "height": 100}]
    person = {"id": 1, "name": "person"}
    dataset = faster_coco_eval.COCO({"images": images, "annotations": [truth], "categories": [person]})
    evaluation = faster_coco_eval.COCOeval_faster(dataset, dataset.loadRes([found]), iouType="keypoints")
    evaluation.params.useCats = 1
    evaluation._prepare()
    return evaluation.computeOks(1, 1).item(), evaluation.params.kpt_oks_sigmas


@pytest.mark.parametrize("seed", range(3))
def test_oks_is_that_of_the_evaluation(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(17, 2, generator=generator, dtype=torch.float64) * 100
    input = target + torch.randn(17, 2, generator=generator, dtype=torch.float64) * 4
    visibility = torch.randint(0, 3, (17,), generator=generator)
    expected, sigmas = evaluated_similarity(input, target, visibility, area=2500.0)
    value = losses.oks_loss(
        input, target, areas=torch.tensor(2500.0), sigmas=torch.from_numpy(np.asarray(sigmas)), visibility=visibility
    )
    assert 0.1 < expected < 0.9
    torch.testing.assert_close(1 - value.item(), expected)
