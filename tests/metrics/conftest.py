import pytest

from tests.conftest import NUM_PATCHES
from vaegan.metrics import sliced_wasserstein


@pytest.fixture(scope="module", autouse=True)
def all_patches():
    """Compute the sliced Wasserstein distance as in a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_wasserstein, "NUM_PATCHES", NUM_PATCHES)
        yield
