"""Approximate posteriors q(z | x): what an encoder's output means."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from vaegan.config import Component, ComponentConfig, require

MAX_FLOW_DIM = 4096  # an autoregressive layer is built from latent_dim x latent_dim masks


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


@dataclass
class MinScale(Posterior.Config):
    """What all choices have."""

    min_scale: float = 1e-4  # latent units; keeps the KL finite

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_scale > 0, "min_scale", "positive", self.min_scale)


class DiagonalNormal(Posterior):
    """N(m(x), diag s(x)^2), s = softplus(.) + min_scale. Source: Kingma & Welling 2014, arXiv:1312.6114."""

    @dataclass
    class Config(MinScale):
        name: str = "diagonal_normal"

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


class FullNormal(Posterior):
    """N(m(x), L(x) L(x)^T), L lower triangular with the diagonal softplus(.) + min_scale.

    Source: Kingma & Welling 2019, arXiv:1906.02691, section 2.5.1.
    """

    @dataclass
    class Config(MinScale):
        name: str = "full_normal"

    below: Tensor

    def __init__(self, config: Config, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.min_scale = config.min_scale
        self.register_buffer(
            "below", torch.tril_indices(latent_dim, latent_dim, -1), persistent=False
        )

    @property
    def num_features(self) -> int:
        return 2 * self.latent_dim + self.latent_dim * (self.latent_dim - 1) // 2

    def forward(self, features: Tensor) -> Distribution:
        dim = self.latent_dim
        mean, raw_scale, below = features.split([dim, dim, dim * (dim - 1) // 2], 1)
        scale_tril = torch.diag_embed(softplus(raw_scale) + self.min_scale)
        scale_tril[:, self.below[0], self.below[1]] = below
        return MultivariateNormal(mean, scale_tril=scale_tril, validate_args=False)


class Flow(Posterior):
    """A diagonal normal sent through inverse autoregressive layers: fast to draw from, with the density on the way.

    The density of a latent that was not just drawn takes latent_dim passes. Source: Kingma et al. 2016,
    arXiv:1606.04934.
    """

    @dataclass
    class Config(MinScale):
        name: str = "flow"
        num_transforms: int = (
            2  # autoregressive layers; the order of the latents is reversed between two
        )
        hidden_dims: list[int] = field(
            default_factory=lambda: [128]
        )  # units of each layer's network
        context_dim: int = 32  # features of the image that the layers see

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_transforms >= 1, "num_transforms", "at least 1", self.num_transforms)
            require(self.context_dim >= 1, "context_dim", "at least 1", self.context_dim)
            for size in self.hidden_dims:
                require(
                    size >= 1, "hidden_dims", "a list of numbers of at least 1", self.hidden_dims
                )

    def __init__(self, config: Config, latent_dim: int) -> None:
        super().__init__(config, latent_dim)
        self.min_scale, self.context_dim = config.min_scale, config.context_dim
        expected = f"at most {MAX_FLOW_DIM} for posterior=flow"
        require(latent_dim <= MAX_FLOW_DIM, "latent_dim", expected, latent_dim)
        order = torch.arange(latent_dim)
        if order.is_meta:  # zuko's masks have values; an MLP has the same weights
            num_inputs = latent_dim + config.context_dim
            self.transforms = nn.ModuleList(
                zuko.nn.MLP(num_inputs, 2 * latent_dim, config.hidden_dims)
                for _ in range(config.num_transforms)
            )
            return
        self.transforms = nn.ModuleList(
            zuko.flows.MaskedAutoregressiveTransform(
                latent_dim,
                config.context_dim,
                order=order.flip(0) if i % 2 else order,
                hidden_features=config.hidden_dims,
            )
            for i in range(config.num_transforms)
        )

    @property
    def num_features(self) -> int:
        return 2 * self.latent_dim + self.context_dim

    def forward(self, features: Tensor) -> Distribution:
        mean, raw_scale, context = features.split(
            [self.latent_dim, self.latent_dim, self.context_dim], 1
        )
        base = zuko.distributions.DiagNormal(mean, softplus(raw_scale) + self.min_scale)
        to_base = zuko.transforms.ComposedTransform(
            *(transform(context).inv for transform in self.transforms)
        )
        flow: Distribution = zuko.distributions.NormalizingFlow(to_base, base)
        return flow
