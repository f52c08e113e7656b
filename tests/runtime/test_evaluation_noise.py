import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal

from vaegan.probability.likelihoods.location_scale import Gaussian
from vaegan.runtime.evaluation_noise import PerImageNoise


@pytest.mark.parametrize(
    "draw, cdf", [(torch.rand, stats.uniform.cdf), (torch.randn, stats.norm.cdf)]
)
def test_noise_has_the_distribution_and_is_independent(draw, cdf):
    with PerImageNoise((0, "val"), torch.arange(400)):
        first, second = draw(400, 50), draw(400, 50)
    assert first.isfinite().all()
    assert stats.kstest(first.flatten().numpy(), cdf).pvalue > 1e-3
    centered = first - first.mean()
    for other in (second, first.roll(1, 0), first.roll(1, 1)):
        correlation = (centered * (other - other.mean())).mean() / first.var()
        assert abs(correlation.item()) < 0.03


DRAWS = {
    "latents": lambda num: Normal(torch.ones(num, 4), 2.0).rsample(),
    "several samples": lambda num: Normal(torch.ones(num, 4), 2.0).rsample((7,)).movedim(1, 0),
    "prior": lambda num: Independent(Normal(torch.zeros(4), 1.0), 1).rsample((num,)),
    "uniform": lambda num: torch.rand_like(torch.zeros(num, 3, 4, 4)),
    "double": lambda num: torch.randn(num, 4, dtype=torch.float64),
    "target": lambda num: Gaussian.Config().build((1, 4, 4)).target(torch.zeros(num, 1, 4, 4)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_each_image_has_its_own_noise_in_any_batch(draw):
    with PerImageNoise((0,), torch.arange(6)):
        expected = [draw(6), draw(6)]
    for indices in ([3], [5, 1], [0, 2, 4]):
        with PerImageNoise((0,), torch.tensor(indices)):
            found = [draw(len(indices)), draw(len(indices))]
        for noise, all_noise in zip(found, expected, strict=True):
            assert noise.dtype == all_noise.dtype and torch.equal(noise, all_noise[indices])
    assert not torch.equal(*expected)


def test_parts_of_a_batch_and_other_functions_use_the_global_generator():
    torch.manual_seed(0)
    expected = [torch.rand(2, 3), torch.randperm(9), torch.zeros(7).exponential_()]
    torch.manual_seed(0)
    with PerImageNoise((0,), torch.arange(4)):
        found = [torch.rand(2, 3), torch.randperm(9), torch.zeros(7).exponential_()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
