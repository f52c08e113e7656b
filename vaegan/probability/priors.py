"""Priors p(z). A prior is a module whose forward returns a distribution over latents; all are trained with the VAE.

It is given `encode`, the VAE's map from images to posteriors, since some priors (VampPrior) are mixtures of posteriors.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from vaegan.config import Component, ComponentConfig, require
from vaegan.images import ImageShape
from vaegan.probability.mixtures import mixture


class Prior(Component, nn.Module, abc.ABC, group="prior"):
    """p(z)."""

    num_initial_images: int = 0  # that `initialize` wants

    @dataclass
    class Config(ComponentConfig):
        def build(self, latent_dim: int, image_shape: ImageShape) -> Prior:
            built: Prior = self.component(self, latent_dim, image_shape)
            return built

    def __init__(self, config: Any, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def initialize(self, images: Tensor) -> None:
        """Called once before the training, with `num_initial_images` training images in [0, 1], (N, C, H, W)."""

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

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        return Independent(
            Normal(self.loc, self.scale, validate_args=False), 1, validate_args=False
        )


class GaussianMixture(Prior):
    """sum_k w_k N(m_k, diag s_k^2); weights, means and scales are learned. They start close to N(0, I)."""

    @dataclass
    class Config(Prior.Config):
        name: str = "gaussian_mixture"
        num_components: int = 100
        min_scale: float = 1e-2  # latent units; keeps a component from collapsing onto one image

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_components >= 1, "num_components", "at least 1", self.num_components)
            require(0 < self.min_scale < 0.8, "min_scale", "in (0, 0.8)", self.min_scale)

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        self.min_scale = config.min_scale
        self.logits = nn.Parameter(torch.zeros(config.num_components))
        self.means = nn.Parameter(0.5 * torch.randn(config.num_components, latent_dim))
        excess = torch.tensor(0.75**0.5 - config.min_scale, device="cpu")  # 0.5^2 + 0.75 = 1
        raw = excess.expm1().log().item()
        self.raw_scales = nn.Parameter(torch.full((config.num_components, latent_dim), raw))

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        scales = softplus(self.raw_scales) + self.min_scale
        components = Independent(
            Normal(self.means, scales, validate_args=False), 1, validate_args=False
        )
        return mixture(self.logits, components)


class VampPrior(Prior):
    """1/K sum_k q(z | u_k): the aggregate posterior of K pseudo-inputs u_k, which are learned and start as images.

    With posterior=flow every density takes K latent_dim passes: keep K small there.
    Source: Tomczak & Welling 2018, arXiv:1705.07120.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "vamp_prior"
        num_pseudo_inputs: int = 500  # K; each training step encodes them all

        def __post_init__(self) -> None:
            super().__post_init__()
            require(
                self.num_pseudo_inputs >= 1,
                "num_pseudo_inputs",
                "at least 1",
                self.num_pseudo_inputs,
            )

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        self.num_initial_images = config.num_pseudo_inputs
        self.raw_inputs = nn.Parameter(
            torch.randn(config.num_pseudo_inputs, *image_shape)
        )  # logits of pixels

    def initialize(self, images: Tensor) -> None:
        with torch.no_grad():
            self.raw_inputs.copy_(images.clamp(0.01, 0.99).logit())

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        return mixture(
            self.raw_inputs.new_zeros(len(self.raw_inputs)), encode(self.raw_inputs.sigmoid())
        )


class Flow(Prior):
    """N(0, I) sent through coupling layers, which are fast in both directions.

    Source: RealNVP (kind=affine): Dinh et al. 2017, arXiv:1605.08803; neural spline flow: Durkan et al. 2019,
    arXiv:1906.04032. Splines act within [-5, 5] and are the identity outside.

    Raises:
        ValueError: on construction, if latents have one dimension, which couples with nothing.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "flow"
        kind: str = "spline"  # spline, affine
        num_transforms: int = 6  # coupling layers
        hidden_dims: list[int] = field(
            default_factory=lambda: [128, 128]
        )  # units of each layer's network

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.kind in ("spline", "affine"), "kind", "spline or affine", self.kind)
            require(self.num_transforms >= 1, "num_transforms", "at least 1", self.num_transforms)
            for size in self.hidden_dims:
                require(
                    size >= 1, "hidden_dims", "a list of numbers of at least 1", self.hidden_dims
                )

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        require(latent_dim >= 2, "latent_dim", "at least 2 for prior=flow", latent_dim)
        univariate: dict[str, Any] = {}
        bins = 8
        if config.kind == "spline":
            univariate = {
                "univariate": zuko.transforms.MonotonicRQSTransform,
                "shapes": [(bins,), (bins,), (bins - 1,)],
            }
        if torch.get_default_device().type == "meta":  # zuko's masks have values; an MLP has none
            size = latent_dim // 2
            num_params = 3 * bins - 1 if univariate else 2
            self.flow = nn.Sequential()
            for _ in range(config.num_transforms):
                self.flow.append(zuko.nn.MLP(size, size * num_params, config.hidden_dims))
            return
        self.flow = zuko.flows.NICE(
            latent_dim,
            transforms=config.num_transforms,
            hidden_features=config.hidden_dims,
            **univariate,
        )

    def forward(self, encode: Callable[[Tensor], Distribution]) -> Distribution:
        flow: Distribution = self.flow()
        return flow
