import pytest

from lossatlas import kernels
from tests.kernels.case import REQUIRED


@pytest.mark.skipif(not REQUIRED, reason="LOSSATLAS_REQUIRE_KERNELS=1 makes missing kernels a failure")
def test_the_kernels_are_built() -> None:
    status = kernels.status()
    assert status.kernels, f"the kernels are not used: {status.reason}"
