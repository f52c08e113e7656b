"""Approximate posteriors q(z | x), parametrized by the encoder's output.

To add a posterior, write one class here: it is then available as `posterior=NAME`.
"""

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

MAX_MASK_DIM = 4096  # largest layer width of a flow; the size of a mask grows with its square


class Posterior(Component, nn.Module, abc.ABC, group="posterior"):
    """Approximate posterior q(z | x) over the latents of an image.

    Args:
        config: Settings.
        latent_dim: Number of dimensions of z.
        num_features: Number of encoder outputs per image that parametrize q(z | x).
    """

    @dataclass
    class Config(ComponentConfig):
        """Settings of a posterior; `build(latent_dim)` constructs it."""

        # smallest standard deviation of q(z|x) (full_normal: smallest diagonal entry of L; flow: of
        # its base distribution), in latent units, > 0; keeps the KL finite
        min_scale: float = 1e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)

    def __init__(self, config: Any, latent_dim: int, num_features: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.num_features = num_features
        self.min_scale = config.min_scale

    def to_scale(self, raw: Tensor) -> Tensor:
        """Return softplus(raw) + min_scale: positive scales in latent units, any shape."""
        return softplus(raw) + self.min_scale

    @abc.abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Return q(z | x) with batch shape (B,), event shape (latent_dim,) and an `rsample`.

        Args:
            features: Encoder output, (B, num_features).
        """


class DiagonalNormal(Posterior):
    """Normal with diagonal covariance: q(z | x) = N(z; m, diag(s^2)), s = softplus(r) + min_scale.

    Encoder output: m and r, latent_dim values each.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 9.
    """

    @dataclass
    class Config(Posterior.Config):
        name: str = "diagonal_normal"

    def __init__(self, config: Config, latent_dim: int) -> None:
        super().__init__(config, latent_dim, num_features=2 * latent_dim)

    def forward(self, features: Tensor) -> Distribution:
        mean, raw_scale = features.chunk(2, dim=1)
        normal = Normal(mean, self.to_scale(raw_scale), validate_args=False)
        return Independent(normal, 1, validate_args=False)


class FullNormal(Posterior):
    """Normal with full covariance: q(z | x) = N(z; m, L L^T).

    L is lower triangular with diagonal softplus(r) + min_scale. Encoder output: m and r, latent_dim
    values each, then the entries of L below the diagonal, row by row.

    Source: Kingma & Welling 2019, arXiv:1906.02691, section 2.5.1.
    """

    @dataclass
    class Config(Posterior.Config):
        name: str = "full_normal"

    lower_indices: Tensor

    def __init__(self, config: Config, latent_dim: int) -> None:
        num_lower = latent_dim * (latent_dim - 1) // 2
        super().__init__(config, latent_dim, num_features=2 * latent_dim + num_lower)
        self.feature_sizes = [latent_dim, latent_dim, num_lower]
        lower_indices = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("lower_indices", lower_indices, persistent=False)

    def forward(self, features: Tensor) -> Distribution:
        mean, raw_diagonal, lower = features.split(self.feature_sizes, dim=1)
        rows, columns = self.lower_indices
        scale_tril = torch.diag_embed(self.to_scale(raw_diagonal))
        scale_tril[:, rows, columns] = lower
        return MultivariateNormal(mean, scale_tril=scale_tril, validate_args=False)


class FlowPosterior(Posterior):
    """Diagonal normal transformed by inverse autoregressive layers (IAF).

    Sampling, including the density of the samples, takes one pass through the layers. The density
    of any other latent takes latent_dim passes. Encoder output: m and r of the diagonal normal
    (see `DiagonalNormal`), then `context_dim` values that condition the layers.

    Source: Kingma et al. 2016, arXiv:1606.04934.

    Raises:
        ValueError: On construction, if latent_dim is larger than `MAX_MASK_DIM`.
    """

    @dataclass
    class Config(Posterior.Config):
        name: str = "flow"
        # autoregressive layers, >= 1; each layer reverses the order of the latent dimensions
        num_transforms: int = 2
        # units of each hidden layer of an autoregressive layer's network, 1 to 4,096 each
        hidden_dims: list[int] = field(default_factory=lambda: [128])
        context_dim: int = 32  # encoder outputs that condition the layers, 1 to 4,096

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_transforms >= 1, "num_transforms", "at least 1", self.num_transforms)
            is_valid = 1 <= self.context_dim <= MAX_MASK_DIM
            require(is_valid, "context_dim", f"in 1 to {MAX_MASK_DIM}", self.context_dim)
            is_valid = all(1 <= size <= MAX_MASK_DIM for size in self.hidden_dims)
            expected = f"a list of numbers from 1 to {MAX_MASK_DIM}"
            require(is_valid, "hidden_dims", expected, self.hidden_dims)

    def __init__(self, config: Config, latent_dim: int) -> None:
        expected = f"at most {MAX_MASK_DIM} for posterior=flow"
        require(latent_dim <= MAX_MASK_DIM, "latent_dim", expected, latent_dim)
        super().__init__(config, latent_dim, num_features=2 * latent_dim + config.context_dim)
        self.feature_sizes = [latent_dim, latent_dim, config.context_dim]
        self.transforms = nn.ModuleList()
        with torch.device("cpu"):  # zuko reads the values of its masks, so they need real memory
            order = torch.arange(latent_dim)
            for _ in range(config.num_transforms):
                layer = zuko.flows.MaskedAutoregressiveTransform(
                    latent_dim, config.context_dim, order=order, hidden_features=config.hidden_dims
                )
                self.transforms.append(layer)
                order = order.flip(0)

    def forward(self, features: Tensor) -> Distribution:
        mean, raw_scale, context = features.split(self.feature_sizes, dim=1)
        base = zuko.distributions.DiagNormal(mean, self.to_scale(raw_scale))
        inverses = [transform(context).inv for transform in self.transforms]
        to_base = zuko.transforms.ComposedTransform(*inverses)
        return zuko.distributions.NormalizingFlow(to_base, base)
