"""Priors p(z). A prior is a module whose forward returns a distribution over latents.

It is given `encode`, the VAE's map from images to posteriors, since some priors (VampPrior) are mixtures of posteriors.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaegan.config import Component, ComponentConfig


class Prior(Component, nn.Module, abc.ABC, group="prior"):
    """p(z)."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, latent_dim: int) -> Prior:
            built: Prior = self.component(self, latent_dim)
            return built

    def __init__(self, config: Any, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @abc.abstractmethod
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        """Distribution with batch shape (), event shape (latent_dim,)."""


class StandardNormal(Prior):
    """N(0, I). Source: Kingma & Welling 2014, arXiv:1312.6114."""

    @dataclass
    class Config(Prior.Config):
        name: str = "standard_normal"

    loc: Tensor
    scale: Tensor

    def __init__(self, config: Config, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        return Independent(Normal(self.loc, self.scale, validate_args=False), 1, validate_args=False)
