"""Distributions that torch.distributions lacks, or computes more slowly or less precisely.

Log-densities are in nats. In distributions over images, the last three dimensions of a sample are
one image, (C, H, W); all dimensions before them are the batch.
"""

from vaegan.probability.distributions.continuous_bernoulli import ContinuousBernoulli
from vaegan.probability.distributions.discretized_logistic import DiscretizedLogisticMixture
from vaegan.probability.distributions.mixtures import DiagonalNormalMixture, mixture
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
    "eight_bit",
    "mean_of",
    "mixture",
]
