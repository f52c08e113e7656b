"""Noise models p(x | z): what a decoder's output means.

A likelihood is a module whose forward turns the decoder's parameters into a distribution over images, normalised over
its support, so that `log_prob` is in nats per image. To add a noise model, write one class here: it is at once a choice
(`likelihood=NAME`) on the command line, in sweeps, in checkpoints and in the tests.

    name                            support            p(x | z), a product over pixels unless said
    bernoulli                       {0, 1}             m^x (1 - m)^(1 - x),  m = sigmoid(.)                    mass
    categorical                     {0, 1, ..., 255}   any 256 probabilities                                   mass
    discretized_logistic_mixture    {0, 1, ..., 255}   rounded logistics, coupled over the channels            mass
    continuous_bernoulli            [0, 1]             proportional to m^x (1 - m)^(1 - x)                     density
    gaussian                        R                  N(x; m, s^2),  m = sigmoid(.)                           density
    laplace                         R                  exp(-|x - m| / s) / 2s,  m = sigmoid(.)                 density
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributions as torch_distributions
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.constraints import Constraint

import vaegan.distributions as distributions
from vaegan.config import Component, ComponentConfig, require
from vaegan.distributions import NUM_LEVELS
from vaegan.images import ImageShape
from vaegan.random import image_noise
from vaegan.scales import KINDS, build_scale

INSTEAD = "choose likelihood=gaussian, discretized_logistic_mixture or another one"


class Likelihood(Component, nn.Module, abc.ABC, group="likelihood"):
    """p(x | z) as a function of what the decoder puts out."""

    support: ClassVar[Constraint]  # of one pixel; `support.is_discrete` tells a mass from a density
    static_seed: int | None = None  # of noise that is always the same for an image; None: new noise at every use

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> Likelihood:
            built: Likelihood = self.component(self, image_shape)
            return built

    def __init__(self, config: Any, image_shape: ImageShape, param_channels: int | None = None) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.param_shape = (param_channels or image_shape[0], *image_shape[1:])  # the decoder's output for one image

    @property
    @abc.abstractmethod
    def level_width(self) -> float | None:
        """What one level of an 8-bit pixel takes of the support: 1 for a mass, 1/256 for a dequantized density.

        None where `log_prob` says nothing of 8-bit pixels, and bits per dimension would be meaningless.
        """

    @abc.abstractmethod
    def to_support(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images in [0, 1], (B, C, H, W), mapped onto the support with uniform noise in [0, 1) of the same shape."""

    @abc.abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """Distribution over images.

        Args:
            params: Decoder output, (..., *param_shape).

        Returns:
            Batch shape (...,), event shape `image_shape`; `mean`, (..., C, H, W), lies in [0, 1].
        """

    def observe(self, params: Tensor, target: Tensor) -> None:
        """Called with every training batch before it is scored, for likelihoods that keep statistics of it."""

    @property
    def is_discrete(self) -> bool:
        """Whether `log_prob` is the logarithm of a mass (at most 0), or of a density (which may be positive)."""
        return bool(self.support.is_discrete)

    def target(self, x: Tensor, seed: int | None = None) -> Tensor:
        """What this model explains of 8-bit images: binarized, dequantized, or as they are.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            seed: Makes binarization and dequantization a function of (seed, image). None draws anew from torch's global
                generator, unless the likelihood is static.
        """
        seed = seed if self.static_seed is None else self.static_seed
        return self.to_support(x, torch.rand_like(x) if seed is None else image_noise(x, seed))

    def check(self, target: Tensor) -> None:
        """Raise a ValueError unless all pixels lie on the support."""
        outside = target[~self.support.check(target)]
        if len(outside):
            name = type(self).Config.name
            raise ValueError(f"likelihood={name} has the support {self.support}; got a pixel {outside[0].item():.4g}")

    def bits_per_dim(self, log_prob: Tensor) -> Tensor | None:
        """Log-probabilities in nats per image, any shape, as bits per 8-bit pixel and channel; None: meaningless."""
        if self.level_width is None:
            return None
        return -(log_prob / math.prod(self.image_shape) + math.log(self.level_width)) / math.log(2)


class Bernoulli(Likelihood):
    """Binary pixels: each is white with its grey value as probability, by default drawn anew at every use.

    Raises a ValueError on construction if the images have colour. Source: Salakhutdinov & Murray 2008.
    """

    support = constraints.boolean

    @dataclass
    class Config(Likelihood.Config):
        name: str = "bernoulli"
        static_seed: int | None = None  # binarizes each image always in one way, f(seed, image); null: anew each time

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        if image_shape[0] != 1:
            raise ValueError(f"likelihood=bernoulli wants grey images, got {image_shape[0]} channels; {INSTEAD}")
        self.static_seed = config.static_seed

    @property
    def level_width(self) -> None:
        return None

    def to_support(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < x).to(x.dtype)

    def forward(self, params: Tensor) -> Distribution:
        return Independent(torch_distributions.Bernoulli(logits=params, validate_args=False), 3, validate_args=False)


class EightBit(Likelihood, abc.ABC):
    """A mass over the 256 levels of each pixel."""

    support = distributions.eight_bit

    @property
    def level_width(self) -> float:
        return 1.0

    def to_support(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1)).round() / (NUM_LEVELS - 1)


class Categorical(EightBit):
    """256 free probabilities for each pixel and channel. Source: van den Oord et al. 2016, arXiv:1601.06759."""

    @dataclass
    class Config(EightBit.Config):
        name: str = "categorical"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape, NUM_LEVELS * image_shape[0])

    def forward(self, params: Tensor) -> Distribution:
        return distributions.EightBitCategorical(params.unflatten(-3, (NUM_LEVELS, self.image_shape[0])))


class DiscretizedLogisticMixture(EightBit):
    """Rounded logistic distributions; with one component, the plain discretized logistic.

    Source: Kingma et al. 2016, arXiv:1606.04934 (one component); Salimans et al. 2017, arXiv:1701.05517.
    """

    @dataclass
    class Config(EightBit.Config):
        name: str = "discretized_logistic_mixture"
        num_components: int = 5  # logistic distributions of each pixel
        min_scale: float = 5e-4  # image units, an eighth of a level: sharper masses would be all on one level anyhow

        def __post_init__(self) -> None:
            super().__post_init__()
            for key in ("num_components", "min_scale"):
                require(getattr(self, key) > 0, key, "positive", getattr(self, key))

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        channels = image_shape[0]
        sizes = [1, channels, channels, channels * (channels - 1) // 2]  # of each component, per pixel
        super().__init__(config, image_shape, config.num_components * sum(sizes))
        self.sizes, self.num_components, self.min_scale = sizes, config.num_components, config.min_scale
        spread = torch.linspace(-1, 1, config.num_components + 2)[1:-1]  # the components must differ at the start
        self.register_buffer("spread", spread.view(-1, 1, 1, 1), persistent=False)

    def forward(self, params: Tensor) -> Distribution:
        params = params.unflatten(-3, (self.num_components, -1))
        logits, locations, raw_scales, coefficients = params.split(self.sizes, -3)
        scales = self.min_scale + 0.1 * nn.functional.softplus(raw_scales + 1)
        return distributions.DiscretizedLogisticMixture(
            logits.squeeze(-3), 0.5 + 0.5 * (locations + self.spread), scales, coefficients.tanh()
        )


class Density(Likelihood, abc.ABC):
    """A density. By default the 8-bit images are dequantized: x = (level + noise) / 256, noise uniform in [0, 1).

    Without that, a density can grow without bound on constant pixels, and says nothing about the 8-bit images.
    Source: Theis et al. 2016, arXiv:1511.01844, section 3.1.
    """

    support: ClassVar[Constraint] = constraints.real

    @dataclass
    class Config(Likelihood.Config):
        dequantize: bool = True  # false scores the grey values as they are; bits per dimension are then not defined

    def __init__(self, config: Any, image_shape: ImageShape, param_channels: int | None = None) -> None:
        super().__init__(config, image_shape, param_channels)
        self.dequantize = config.dequantize

    @property
    def level_width(self) -> float | None:
        return 1 / NUM_LEVELS if self.dequantize else None

    def to_support(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1) + noise) / NUM_LEVELS if self.dequantize else x


class ContinuousBernoulli(Density):
    """Grey pixels: binary cross-entropy with the normaliser that it lacks there. Source: arXiv:1907.06845."""

    support = constraints.unit_interval

    @dataclass
    class Config(Density.Config):
        name: str = "continuous_bernoulli"

    def forward(self, params: Tensor) -> Distribution:
        return distributions.ContinuousBernoulli(params)


class LocationScale(Density, abc.ABC):
    """Real pixels around a location in (0, 1), with noise of one of the scales in scales.py."""

    POWER: ClassVar[int]  # p of the norm of residuals that the optimal scale follows
    FAMILY: ClassVar[Callable[..., Distribution]]

    @dataclass
    class Config(Density.Config):
        scale: int | float | str = "learned"  # learned, per_channel, per_pixel, optimal, or a number in image units
        initial_scale: float = 0.2  # image units; where the scale starts
        min_scale: float = 1e-3  # image units, a quarter of a level; keeps the density finite

        def __post_init__(self) -> None:
            super().__post_init__()
            fits = self.scale in KINDS if isinstance(self.scale, str) else self.scale > 0
            require(fits, "scale", f"a positive number, or one of {', '.join(KINDS)}", self.scale)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)
            expected = f"larger than min_scale={self.min_scale}"
            require(self.initial_scale > self.min_scale, "initial_scale", expected, self.initial_scale)

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        scale = build_scale(config.scale, image_shape[0], self.POWER, config.initial_scale, config.min_scale)
        super().__init__(config, image_shape, image_shape[0] * (1 + scale.params_per_channel))
        self.scale = scale

    def observe(self, params: Tensor, target: Tensor) -> None:
        self.scale.observe(target - params[..., : self.image_shape[0], :, :].sigmoid())

    def forward(self, params: Tensor) -> Distribution:
        channels = self.image_shape[0]
        location, raw_scale = params[..., :channels, :, :].sigmoid(), params[..., channels:, :, :]
        return Independent(self.FAMILY(location, self.scale(raw_scale), validate_args=False), 3, validate_args=False)


class Gaussian(LocationScale):
    """Normal noise. A fixed scale s is the classical VAE: up to a constant, the squared error over 2 s^2.

    A learned or optimal scale finds the weight between the ELBO's two terms by itself. Source: Rybkin et al. 2021,
    arXiv:2006.13202.
    """

    POWER = 2
    FAMILY = torch_distributions.Normal

    @dataclass
    class Config(LocationScale.Config):
        name: str = "gaussian"


class Laplace(LocationScale):
    """Noise with heavier tails: the absolute error over the scale, up to a constant."""

    POWER = 1
    FAMILY = torch_distributions.Laplace

    @dataclass
    class Config(LocationScale.Config):
        name: str = "laplace"
