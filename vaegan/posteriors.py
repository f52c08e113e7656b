"""Approximate posteriors q(z | x): what an encoder's output means."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from vaegan.config import Component, ComponentConfig, require


class Posterior(Component, nn.Module, abc.ABC, group="posterior"):
    """q(z | x) as a function of what the encoder puts out."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, latent_dim: int) -> Posterior:
            built: Posterior = self.component(self, latent_dim)
            return built

    def __init__(self, config: Any, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    @abc.abstractmethod
    def num_features(self) -> int:
        """Length of the encoder's output for one image."""

    @abc.abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Distribution with batch shape (B,), event shape (latent_dim,), of encoder features (B, num_features).

        Its `rsample` is differentiable.
        """


class DiagonalNormal(Posterior):
    """N(m(x), diag s(x)^2), s = softplus(.) + min_scale. Source: Kingma & Welling 2014, arXiv:1312.6114."""

    @dataclass
    class Config(Posterior.Config):
        name: str = "diagonal_normal"
        min_scale: float = 1e-4  # latent units; keeps the KL finite

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)

    def __init__(self, config: Config, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.min_scale = config.min_scale

    @property
    def num_features(self) -> int:
        return 2 * self.latent_dim

    def forward(self, features: Tensor) -> Distribution:
        mean, raw_scale = features.chunk(2, dim=1)
        scale = softplus(raw_scale) + self.min_scale
        return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)
