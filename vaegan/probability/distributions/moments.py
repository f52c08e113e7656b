"""Moments of distributions that may have no closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution


def mean_of(distribution: Distribution, num_samples: int = 64) -> Tensor:
    """Return the mean of a distribution: exact if known, else the mean of `num_samples` samples."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample(torch.Size([num_samples])).mean(0)
