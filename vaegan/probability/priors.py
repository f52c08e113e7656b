"""Priors p(z). A prior is a module whose forward returns a distribution over latents.

Its parameters are trained with the VAE. Its forward takes `encode`, the VAE's map from images to
posteriors, since some priors (VampPrior) are mixtures of posteriors.
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
from vaegan.probability.distributions import mixture

Encode = Callable[[Tensor], Distribution]  # images (B, C, H, W) -> q(z | x), batch shape (B,)

INITIAL_MEAN_STD = 0.5  # of the means of a Gaussian mixture, in latent units
INITIAL_SCALE = (1 - INITIAL_MEAN_STD**2) ** 0.5  # the mixture then has unit variance
PIXEL_MARGIN = 0.01  # keeps the logits of pseudo-input pixels finite
MAX_FLOW_DIM = 65_536  # latents of a flow: its masks are built before its weights are counted
NUM_SPLINE_BINS = 8


class Prior(Component, nn.Module, abc.ABC, group="prior"):
    """Prior p(z).

    Args:
        config: Settings.
        latent_dim: Dimensions of z.
        image_shape: (C, H, W), of the images that `encode` takes.
    """

    num_initial_images: int = 0  # training images that `initialize` takes

    @dataclass
    class Config(ComponentConfig):
        """Settings of a prior; `build(latent_dim, image_shape)` constructs it."""

    def __init__(self, config: Any, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def initialize(self, images: Tensor) -> None:
        """Set parameters from training images; called once, before training.

        Args:
            images: In [0, 1], (num_initial_images, C, H, W).
        """

    @abc.abstractmethod
    def forward(self, encode: Encode) -> Distribution:
        """Return p(z): batch shape (), event shape (latent_dim,)."""


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

    def forward(self, encode: Encode) -> Distribution:
        normal = Normal(self.loc, self.scale, validate_args=False)
        return Independent(normal, 1, validate_args=False)


class GaussianMixture(Prior):
    """sum_k w_k N(m_k, diag s_k^2) with learned parameters; starts close to N(0, I)."""

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
        shape = (config.num_components, latent_dim)
        self.logits = nn.Parameter(torch.zeros(config.num_components))
        self.means = nn.Parameter(INITIAL_MEAN_STD * torch.randn(shape))
        # on the CPU, whatever the default device: the value is read at once
        initial = torch.tensor(INITIAL_SCALE - config.min_scale, device="cpu")
        inverse_softplus = torch.expm1(initial).log().item()
        self.raw_scales = nn.Parameter(torch.full(shape, inverse_softplus))

    def forward(self, encode: Encode) -> Distribution:
        scales = softplus(self.raw_scales) + self.min_scale
        normals = Normal(self.means, scales, validate_args=False)
        return mixture(self.logits, Independent(normals, 1, validate_args=False))


class VampPrior(Prior):
    """1/K sum_k q(z | u_k): mixture of the posteriors of K learned pseudo-inputs u_k.

    The pseudo-inputs start as training images. With posterior=flow every density takes
    K latent_dim passes: keep K small there. Source: Tomczak & Welling 2018, arXiv:1705.07120.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "vamp_prior"
        num_pseudo_inputs: int = 500  # K; each training step encodes them all

        def __post_init__(self) -> None:
            super().__post_init__()
            num = self.num_pseudo_inputs
            require(num >= 1, "num_pseudo_inputs", "at least 1", num)

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        self.num_initial_images = config.num_pseudo_inputs
        # logits of pixels
        self.raw_inputs = nn.Parameter(torch.randn(config.num_pseudo_inputs, *image_shape))

    @torch.no_grad()
    def initialize(self, images: Tensor) -> None:
        self.raw_inputs.copy_(images.clamp(PIXEL_MARGIN, 1 - PIXEL_MARGIN).logit())

    def forward(self, encode: Encode) -> Distribution:
        equal_logits = self.raw_inputs.new_zeros(len(self.raw_inputs))
        return mixture(equal_logits, encode(self.raw_inputs.sigmoid()))


class FlowPrior(Prior):
    """N(0, I) transformed by coupling layers, which are fast in both directions.

    Source: RealNVP (kind=affine): Dinh et al. 2017, arXiv:1605.08803; neural spline flow: Durkan
    et al. 2019, arXiv:1906.04032. Splines act within [-5, 5] and are the identity outside.

    Raises:
        ValueError: On construction, if latent_dim is 1: a coupling layer needs two dimensions.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "flow"
        kind: str = "spline"  # spline, affine
        num_transforms: int = 6  # coupling layers
        # units of each layer's network
        hidden_dims: list[int] = field(default_factory=lambda: [128, 128])

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.kind in ("spline", "affine"), "kind", "spline or affine", self.kind)
            require(self.num_transforms >= 1, "num_transforms", "at least 1", self.num_transforms)
            is_valid = all(size >= 1 for size in self.hidden_dims)
            expected = "a list of numbers of at least 1"
            require(is_valid, "hidden_dims", expected, self.hidden_dims)

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        require(latent_dim >= 2, "latent_dim", "at least 2 for prior=flow", latent_dim)
        expected = f"at most {MAX_FLOW_DIM} for prior=flow"
        require(latent_dim <= MAX_FLOW_DIM, "latent_dim", expected, latent_dim)
        univariate: dict[str, Any] = {}  # zuko's default is affine
        if config.kind == "spline":
            num_bins = NUM_SPLINE_BINS
            univariate["univariate"] = zuko.transforms.MonotonicRQSTransform
            univariate["shapes"] = [(num_bins,), (num_bins,), (num_bins - 1,)]
        with torch.device("cpu"):  # zuko reads the values of its masks: they cannot be meta tensors
            self.flow = zuko.flows.NICE(
                latent_dim,
                transforms=config.num_transforms,
                hidden_features=config.hidden_dims,
                **univariate,
            )

    def forward(self, encode: Encode) -> Distribution:
        return self.flow()
