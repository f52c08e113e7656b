"""Priors p(z). A prior is a module whose forward returns a distribution over latents.

The parameters of a prior are trained with the VAE. The forward takes `encode`, the VAE's map from
images to posteriors, because the VampPrior is a mixture of posteriors. To add a prior, write one
class here: it is then available as `prior=NAME`.
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
from vaegan.probability.coupling import CouplingLayer
from vaegan.probability.distributions import mixture

Encode = Callable[[Tensor], Distribution]  # images (B, C, H, W) -> q(z | x), batch shape (B,)

INITIAL_MEAN_STD = 0.5  # standard deviation of a mixture's initial means, in latent units
INITIAL_SCALE = (1 - INITIAL_MEAN_STD**2) ** 0.5  # gives the initial mixture unit variance
PIXEL_MARGIN = 0.01  # pseudo-inputs start in [0.01, 0.99], which keeps their logits finite
# Largest latent_dim of a flow. Its masks are allocated before the size of a checkpoint is checked.
MAX_FLOW_DIM = 65_536
NUM_SPLINE_BINS = 8  # bins of each rational-quadratic spline


class Prior(Component, nn.Module, abc.ABC, group="prior"):
    """Prior p(z) over the latents.

    Args:
        config: Settings.
        latent_dim: Number of dimensions of z.
        image_shape: (C, H, W) of the images that `encode` takes.
    """

    num_initial_images: int = 0  # number of training images that `initialize` needs

    @dataclass
    class Config(ComponentConfig):
        """Settings of a prior; `build(latent_dim, image_shape)` constructs it."""

    def __init__(self, config: Any, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def initialize(self, images: Tensor) -> None:
        """Set parameters from training images. Called once, before training.

        Args:
            images: Encoder inputs in [0, 1], (num_initial_images, C, H, W).
        """

    @abc.abstractmethod
    def forward(self, encode: Encode) -> Distribution:
        """Return p(z) with batch shape () and event shape (latent_dim,).

        Args:
            encode: Map from images (B, C, H, W) to q(z | x), batch shape (B,).
        """


class StandardNormal(Prior):
    """Standard normal: p(z) = N(z; 0, I).

    Source: Kingma & Welling 2014, arXiv:1312.6114.
    """

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
    """Mixture of K normals: p(z) = sum_k w_k N(z; m_k, diag(s_k^2)).

    Weights, means and scales are trained. The initial mixture is close to N(0, I).
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "gaussian_mixture"
        num_components: int = 100  # components K of the mixture, >= 1
        # smallest standard deviation of a component, in latent units, in (0, 0.8), so that it is
        # below the initial value; keeps a component from collapsing onto one latent vector
        min_scale: float = 1e-2

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
        # on the CPU even under torch.device("meta"), because item() reads the value
        initial = torch.tensor(INITIAL_SCALE - config.min_scale, device="cpu")
        inverse_softplus = torch.expm1(initial).log().item()
        self.raw_scales = nn.Parameter(torch.full(shape, inverse_softplus))

    def forward(self, encode: Encode) -> Distribution:
        scales = softplus(self.raw_scales) + self.min_scale
        normals = Normal(self.means, scales, validate_args=False)
        return mixture(self.logits, Independent(normals, 1, validate_args=False))


class VampPrior(Prior):
    """Mixture of the posteriors of K trainable pseudo-inputs: p(z) = 1/K sum_k q(z | u_k).

    The pseudo-inputs start as training images. With posterior=flow each density evaluation takes
    latent_dim passes for each of the K components, so use a small K.

    Source: Tomczak & Welling 2018, arXiv:1705.07120.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "vamp_prior"
        num_pseudo_inputs: int = 500  # pseudo-inputs K, >= 1; every training step encodes them all

        def __post_init__(self) -> None:
            super().__post_init__()
            num = self.num_pseudo_inputs
            require(num >= 1, "num_pseudo_inputs", "at least 1", num)

    def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, image_shape)
        self.num_initial_images = config.num_pseudo_inputs
        # logits of the pixels of the pseudo-inputs
        self.raw_inputs = nn.Parameter(torch.randn(config.num_pseudo_inputs, *image_shape))

    @torch.no_grad()
    def initialize(self, images: Tensor) -> None:
        self.raw_inputs.copy_(images.clamp(PIXEL_MARGIN, 1 - PIXEL_MARGIN).logit())

    def forward(self, encode: Encode) -> Distribution:
        equal_logits = self.raw_inputs.new_zeros(len(self.raw_inputs))
        return mixture(equal_logits, encode(self.raw_inputs.sigmoid()))


class FlowPrior(Prior):
    """Normalizing flow: N(0, I) transformed by coupling layers.

    Sampling and density take one pass each. Splines act on [-5, 5] and are the identity outside.

    Source: Dinh et al. 2017, arXiv:1605.08803 (RealNVP, kind=affine); Durkan et al. 2019,
    arXiv:1906.04032 (neural spline flow, kind=spline).

    Raises:
        ValueError: On construction, if latent_dim is less than 2 (a coupling layer splits the
            dimensions in two) or larger than `MAX_FLOW_DIM`.
    """

    @dataclass
    class Config(Prior.Config):
        name: str = "flow"
        kind: str = "spline"  # transform of a coupling layer: spline or affine
        num_transforms: int = 6  # coupling layers, >= 1
        # units of each hidden layer of a coupling layer's network, >= 1
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
        with torch.device("cpu"):  # zuko reads the values of its masks, so they need real memory
            layers = [
                CouplingLayer(
                    latent_dim, i % 2 == 1, hidden_features=config.hidden_dims, **univariate
                )
                for i in range(config.num_transforms)
            ]
            base = zuko.lazy.UnconditionalDistribution(
                zuko.distributions.DiagNormal,
                torch.zeros(latent_dim),
                torch.ones(latent_dim),
                buffer=True,
            )
            self.flow = zuko.lazy.Flow(layers, base)

    def forward(self, encode: Encode) -> Distribution:
        return self.flow()
