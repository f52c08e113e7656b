from types import SimpleNamespace

import pytest
import torch

from vaegan.gan.reconstruction import ReconstructionWeights, feature_loss, reconstruction_loss


class RecordingDistribution:
    """Distribution that records whether autocast is on when it is used."""

    def __init__(self):
        self.is_autocast = []

    def rsample(self):
        self.is_autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(2, 3)

    def log_prob(self, value):
        self.is_autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(2)


def test_latents_and_likelihoods_are_computed_without_autocast():
    posterior, likelihood = RecordingDistribution(), RecordingDistribution()
    vae = SimpleNamespace(
        likelihood=SimpleNamespace(target=lambda images: images), encode=lambda x: posterior
    )
    generator = SimpleNamespace(decoder=torch.nn.Identity(), likelihood=lambda params: likelihood)
    weights = ReconstructionWeights(pixels=1.0, features=None)
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction_loss(vae, generator, None, torch.zeros(2, 1, 4, 4), weights)
    assert posterior.is_autocast == likelihood.is_autocast == [False]


def scaled_units(*scales):
    return lambda images: [scale * images for scale in scales]


def test_the_feature_loss_is_the_relative_squared_error_of_each_image():
    images = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    reconstructed = torch.tensor([[0.0, 0.0], [4.0, 3.0]])
    expected = (2 * 1 / 1 + 2 * 2 / 50) / 2
    for scales in ([1], [1e-3, 1e4]):
        loss = feature_loss(scaled_units(*scales), reconstructed, images)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_feature_loss_is_zero_and_differentiable_without_hidden_units():
    """A discriminator with dead units must not give NaN."""
    reconstructed = torch.zeros(3, 4, requires_grad=True)
    loss = feature_loss(scaled_units(1, 0), reconstructed, torch.zeros(3, 4))
    loss.backward()
    assert loss == 0 and not reconstructed.grad.any()


def test_the_gradient_of_the_feature_loss_reduces_the_error():
    """It does not reduce the loss by larger hidden units."""
    images = torch.tensor([[1.0, 0.0]])
    reconstructed = torch.tensor([[0.0, 2.0]], requires_grad=True)
    feature_loss(scaled_units(1), reconstructed, images).backward()
    direction = (images - reconstructed).detach()
    torch.testing.assert_close(reconstructed.grad, -4 / 5 * direction)
