"""Traversals: vary one latent at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaegan.inference.trained_model import TrainedModel

NUM_ACTIVITY_SAMPLES = 16  # images from which the activity of a latent is estimated
NUM_MOMENT_SAMPLES = 1000  # latents from which the range of a traversal is estimated
MAX_DEVIATION = 3.0  # a traversal covers the mean +- 3 standard deviations


def latent_activity(model: TrainedModel) -> Tensor:
    """Return the mean squared change of the pixels when one latent is replaced, (latent_dim,).

    Each latent in turn takes the value of another random sample. A latent that the model ignores
    has activity 0. This needs no images and works for GANs and VAEs.
    """
    z = model.sample_latents(range(NUM_ACTIVITY_SAMPLES))
    images = model.decode(z)
    activity = []
    for i in range(model.latent_dim):
        changed = z.clone()
        changed[:, i] = z[:, i].roll(1)
        activity.append((model.decode(changed) - images).square().mean())
    return torch.stack(activity).cpu()


def traverse(model: TrainedModel, seed: int, latents: Sequence[int], num_steps: int) -> Tensor:
    """Return images in which one latent of a random sample varies.

    Args:
        model: The model.
        seed: Random seed of the sample.
        latents: Indices of the latents to vary.
        num_steps: Values of each latent, from -3 to +3 standard deviations around its mean.

    Returns:
        Images, (len(latents) * num_steps, C, H, W); those of one latent are consecutive.
    """
    samples = model.sample_latents(range(NUM_MOMENT_SAMPLES))
    deviations = torch.linspace(-MAX_DEVIATION, MAX_DEVIATION, num_steps)
    start = model.sample_latents([seed])
    rows = []
    for i in latents:
        row = start.repeat(num_steps, 1)
        row[:, i] = samples[:, i].mean() + deviations * samples[:, i].std()
        rows.append(row)
    return model.decode(torch.cat(rows))
