"""Distributions that torch.distributions lacks or computes more slowly or less precisely.

A distribution over images has event shape (C, H, W) and batch shape (...): parameters and samples
are (..., C, H, W). `log_prob` is (...), summed over pixels and channels, in nats per image.
"""

from vaegan.probability.distributions.continuous_bernoulli import ContinuousBernoulli
from vaegan.probability.distributions.discretized_logistic import DiscretizedLogisticMixture
from vaegan.probability.distributions.mixtures import (
    DiagonalNormalMixture,
    KernelDensity,
    mixture,
)
from vaegan.probability.distributions.moments import mean_of
from vaegan.probability.distributions.pixel_levels import (
    NUM_LEVELS,
    EightBitCategorical,
    eight_bit,
)

__all__ = [
    "NUM_LEVELS",
    "ContinuousBernoulli",
    "DiagonalNormalMixture",
    "DiscretizedLogisticMixture",
    "EightBitCategorical",
    "KernelDensity",
    "eight_bit",
    "mean_of",
    "mixture",
]
