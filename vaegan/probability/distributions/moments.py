"""Moments of distributions that may have no closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution


def mean_of(distribution: Distribution, num_samples: int = 64) -> Tensor:
    """Return the mean of a distribution, (*batch_shape, *event_shape).

    It is exact if the distribution implements `mean`, else the average of `num_samples` samples.
    """
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample(torch.Size([num_samples])).mean(0)
