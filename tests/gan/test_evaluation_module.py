"""Latents of scored images over batches and devices."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from vaegan.gan.evaluation_module import ScoringModule, num_test_draws
from vaegan.gan.latents import draw_latents

LATENTS = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
NUM_IMAGES = 23


class RecordingScorer:
    """Scorer that keeps the images by their index."""

    def __init__(self):
        self.data = SimpleNamespace(splits={"val": range(NUM_IMAGES)}, seed=5)
        self.by_index = {}

    def start(self, split, device):
        pass

    def update(self, images, indices):
        self.by_index |= dict(zip(indices.tolist(), images, strict=True))


class LatentModule(ScoringModule):
    """Module whose images are its latents."""

    def latent_distribution(self):
        return LATENTS

    def generate(self, z):
        return z


class StubTrainer:
    """Rank and number of processes of a trainer."""

    def __init__(self, global_rank, world_size):
        self.global_rank = global_rank
        self.world_size = world_size


@pytest.mark.parametrize("batch_size", [1, 8, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("draw", [0, 1])
def test_latent_of_an_image_depends_on_neither_batches_nor_devices(batch_size, world_size, draw):
    scorer = RecordingScorer()
    for rank in range(world_size):
        module = LatentModule(scorer)
        module.draw = draw
        trainer = StubTrainer(rank, world_size)
        module.trainer = trainer
        module.on_validation_epoch_start()
        for batch in torch.arange(NUM_IMAGES)[rank::world_size].split(batch_size):
            module.validation_step((torch.zeros(len(batch), 1, 2, 2), None), 0)
    images = torch.stack([scorer.by_index[i] for i in range(NUM_IMAGES)])
    assert torch.equal(images, draw_latents(LATENTS, NUM_IMAGES, seed=5, draw=draw))


@pytest.mark.parametrize(
    "num_images, num_draws", [(2, 4), (1000, 4), (1001, 3), (1334, 2), (2000, 2), (2001, 1)]
)
def test_small_test_splits_are_scored_with_several_draws(num_images, num_draws):
    assert num_test_draws(num_images) == num_draws


class LinearModule(LatentModule):
    """Module whose latents and images need matrix products, which autocast computes in 16 bits."""

    def latent_distribution(self):
        return MultivariateNormal(torch.zeros(4), scale_tril=torch.randn(4, 4).tril())

    def generate(self, z):
        return z @ torch.ones(4, 4)


def test_scored_images_are_computed_in_float32_in_mixed_precision():
    scorer = RecordingScorer()
    module = LinearModule(scorer)
    module.trainer = StubTrainer(0, 1)
    module.on_validation_epoch_start()
    batch = (torch.zeros(NUM_IMAGES, 1, 2, 2), None)
    with torch.autocast("cpu", torch.bfloat16):
        module.validation_step(batch, 0)
    images = torch.stack([scorer.by_index[i] for i in range(NUM_IMAGES)])
    assert torch.equal(images, module.generate(module.latents_to_score))


def test_sampled_latents_are_computed_in_float32_in_mixed_precision():
    module = LinearModule(RecordingScorer())
    latents = []
    for is_mixed in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            latents.append(module.sample_latents(8))
    assert torch.equal(*latents)
