import pytest
import torch
from scipy.linalg import sqrtm

from tests.conftest import SMALL_NETS, compose
from vaegan.metrics import encoder_features, frechet_distance
from vaegan.models import VAE


def test_frechet_distance_against_scipy():
    real, fake = torch.randn(500, 6).double(), torch.randn(400, 6).double() * 1.5 + 0.3
    metric = frechet_distance(6)
    for part in real.split(100):
        metric.update(part.float(), real=True)
    metric.update(fake.float(), real=False)
    product = sqrtm((torch.cov(real.T) @ torch.cov(fake.T)).numpy()).real
    expected = (real.mean(0) - fake.mean(0)).square().sum() + torch.cov(real.T).trace() + torch.cov(fake.T).trace()
    assert metric.compute().item() == pytest.approx(expected.item() - 2 * product.trace(), rel=1e-3)


def test_real_features_survive_a_reset_and_fakes_do_not():
    metric = frechet_distance(2)
    metric.update(torch.randn(50, 2), real=True)
    metric.update(torch.randn(50, 2), real=False)
    metric.reset()
    assert int(metric.real_features_num_samples) == 50 and int(metric.fake_features_num_samples) == 0


def test_features_carry_no_gradient_and_are_in_no_state():
    vae = VAE(compose("stage=vae", *SMALL_NETS), (1, 8, 8))
    features = encoder_features(vae, torch.rand(3, 1, 8, 8, requires_grad=True))
    assert features.shape == (3, vae.posterior.num_features) and not features.requires_grad
    assert not frechet_distance(4).state_dict()
