"""The variational autoencoder, by composition only: no loss, no trainer.

images  -> encoder -> posterior  q(z | x)
latents -> decoder -> likelihood p(x | z)
           prior p(z)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.networks import decoders, encoders
from vaegan.networks.decoders import Decoder
from vaegan.networks.encoders import Encoder
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.posteriors import DiagonalNormal, Posterior
from vaegan.probability.priors import Prior, StandardNormal

NUM_CONSTANT_IMAGES = 200  # training images that the initial constant output is fitted to
GRAY_LIKELIHOOD = "bernoulli"  # of images of one channel, unless a config or a data set chooses
COLOR_LIKELIHOOD = "gaussian"


@dataclass
class VAEConfig:
    """The probabilistic model and its networks. Shapes follow from the data set."""

    latent_dim: int = 32  # dimensions of z
    likelihood: Likelihood.Config | None = None  # null: the noise model that suits the data set
    prior: Prior.Config = field(default_factory=StandardNormal.Config)
    posterior: Posterior.Config = field(default_factory=DiagonalNormal.Config)
    encoder: Encoder.Config = field(default_factory=encoders.Conv.Config)
    decoder: Decoder.Config = field(default_factory=decoders.Conv.Config)

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "latent_dim", "at least 1", self.latent_dim)


class VAE(nn.Module):
    """Variational autoencoder.

    Args:
        image_shape: Channels, height, width of the images.
        config: The model; by default convolutional networks, 32 latents with a standard normal
            prior, and Bernoulli pixels (Gaussian ones for images in color).

    Source: Kingma & Welling 2014, arXiv:1312.6114.
    """

    def __init__(self, image_shape: ImageShape, config: VAEConfig | None = None) -> None:
        super().__init__()
        config = VAEConfig() if config is None else config
        likelihood = config.likelihood
        if likelihood is None:
            name = GRAY_LIKELIHOOD if image_shape[0] == 1 else COLOR_LIKELIHOOD
            likelihood = Likelihood.choices[name].Config()
        self.image_shape = image_shape
        self.likelihood: Likelihood = likelihood.build(image_shape)
        self.prior: Prior = config.prior.build(config.latent_dim, image_shape)
        self.posterior: Posterior = config.posterior.build(config.latent_dim)
        self.encoder: Encoder = config.encoder.build(image_shape, self.posterior.num_features)
        self.decoder: Decoder = config.decoder.build(config.latent_dim, self.likelihood.param_shape)

    def initialize(self, images: Tensor) -> None:
        """Initialize the prior and the decoder's output from training images.

        The output starts at the best constant one. Otherwise the first steps teach all hidden units
        that the background is black, which saturates those of a tanh.

        Args:
            images: In [0, 1], (N, C, H, W), at least `prior.num_initial_images`.

        Raises:
            ValueError: The images do not lie on the likelihood's support.
        """
        target = self.likelihood.target(images)
        self.likelihood.check(target)
        self.prior.initialize(target[: self.prior.num_initial_images])
        self.decoder.set_output(fit_constant_output(self.likelihood, target[:NUM_CONSTANT_IMAGES]))

    def encode(self, x: Tensor) -> Distribution:
        """Return q(z | x), batch (B,), of images on the likelihood's support, (B, C, H, W)."""
        return self.posterior(full_precision(self.encoder(x)))

    def decode(self, z: Tensor) -> Distribution:
        """Return p(x | z), batch (...,), of latents (..., latent_dim)."""
        return self.likelihood(self.decoder_params(z))

    def decoder_params(self, z: Tensor) -> Tensor:
        """Return the likelihood's parameters (..., *param_shape) of latents (..., latent_dim)."""
        params = full_precision(self.decoder(z.reshape(-1, z.shape[-1])))
        return params.reshape(*z.shape[:-1], *params.shape[1:])

    def latent_prior(self) -> Distribution:
        """Return p(z), batch ()."""
        return self.prior(self.encode)


def fit_constant_output(likelihood: Likelihood, target: Tensor) -> Tensor:
    """Return the decoder output, param_shape, that suits all targets best if it is constant.

    Its values are at most 6 in size.

    Args:
        likelihood: The noise model.
        target: Images on its support, (N, C, H, W).
    """
    params = torch.zeros(likelihood.param_shape, requires_grad=True)
    optimizer = torch.optim.Adam([params], lr=0.1)
    for _ in range(60):
        loss = -likelihood(params.unsqueeze(0)).log_prob(target).mean()
        (params.grad,) = torch.autograd.grad(loss, [params])
        optimizer.step()
    return params.detach()


def full_precision(x: Tensor) -> Tensor:
    """Return at least float32: sums of log-densities over an image need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
