import pytest
import torch

from vaegan.probability.noise_scales import (
    SCALE_KINDS,
    FixedScale,
    LearnedScale,
    OptimalScale,
    PerPixelScale,
    build_scale,
)


@pytest.mark.parametrize("kind", [*SCALE_KINDS, 0.3, 2])
def test_every_scale_is_positive_and_broadcasts_to_images(kind):
    scale = build_scale(kind, num_channels=3, power=2, initial=0.2, minimum=0.01)
    raw = torch.randn(4, 3 * scale.params_per_channel, 5, 6) * 10
    values = scale(raw)
    assert values.min() >= 0.01
    assert torch.broadcast_shapes(values.shape, (4, 3, 5, 6)) == (4, 3, 5, 6)


@pytest.mark.parametrize(
    "kind, scale_class",
    [("learned", LearnedScale), ("per_channel", LearnedScale), ("per_pixel", PerPixelScale)],
)
def test_trainable_scales_start_at_the_initial_scale(kind, scale_class):
    scale = build_scale(kind, 3, 2, 0.2, 0.01)
    assert isinstance(scale, scale_class)
    values = scale(torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(values, torch.full_like(values, 0.2))


def test_learned_scale_has_one_parameter_and_per_channel_scale_one_per_channel():
    assert build_scale("per_channel", 3, 2, 0.2, 0.01).log_excess.numel() == 3
    assert build_scale("learned", 3, 2, 0.2, 0.01).log_excess.numel() == 1


def test_number_gives_a_fixed_scale():
    scale = build_scale(0.3, 3, 2, 0.2, 0.01)
    assert isinstance(scale, FixedScale)
    assert not list(scale.parameters())
    assert scale(torch.empty(0)).item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "power, family", [(2, torch.distributions.Normal), (1, torch.distributions.Laplace)]
)
def test_optimal_scale_maximizes_the_likelihood_of_the_residuals(power, family):
    residuals = torch.distributions.Laplace(0.0, 0.1).sample((64, 1, 8, 8))
    scale = OptimalScale(power, 0.2, 0.001)
    scale.update_running_scale(residuals)
    best = scale(torch.empty(0))

    def log_prob(value):
        return family(0.0, value).log_prob(residuals).mean()

    assert log_prob(best) > log_prob(best * 1.01) and log_prob(best) > log_prob(best * 0.99)


def test_optimal_scale_follows_recent_batches_and_is_saved():
    scale = OptimalScale(2, 0.2, 0.001)
    for size in [1.0] * 10 + [0.1] * 400:
        scale.update_running_scale(torch.full((2, 1, 2, 2), size))
    assert scale(torch.empty(0)).item() == pytest.approx(0.1, rel=0.02)
    loaded = OptimalScale(2, 0.2, 0.001)
    loaded.load_state_dict(scale.state_dict())
    assert torch.equal(loaded(torch.empty(0)), scale(torch.empty(0)))


def test_optimal_scale_is_at_least_the_minimum():
    scale = OptimalScale(2, 0.2, 0.001)
    scale.update_running_scale(torch.zeros(2, 1, 2, 2))
    assert scale(torch.empty(0)).item() == pytest.approx(0.001)


def test_optimal_scale_ignores_non_finite_batches():
    good, disturbed = (build_scale("optimal", 1, 2, 1.0, 1e-3) for _ in range(2))
    for scale in (good, disturbed):
        scale.update_running_scale(torch.full((4,), 0.5))
    disturbed.update_running_scale(torch.full((4,), torch.nan))
    for scale in (good, disturbed):
        scale.update_running_scale(torch.full((4,), 0.1))
    assert torch.equal(good(torch.zeros(1)), disturbed(torch.zeros(1)))
    assert disturbed.num_batches == 2
    fresh = build_scale("optimal", 1, 2, 1.0, 1e-3)
    fresh.update_running_scale(torch.tensor([torch.inf]))
    assert fresh(torch.zeros(1)) == 1.0
