"""The models, by composition only: no loss, no trainer.

VAE          images -> encoder -> posterior q(z|x);   latents -> decoder -> likelihood p(x|z);   prior p(z)
Generator    latents -> the VAE's decoder -> the likelihood's mean = images
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from omegaconf import MISSING
from torch import Tensor, nn
from torch.distributions import Distribution

from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.networks.decoders import Decoder
from vaegan.networks.encoders import Encoder
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.posteriors import Posterior
from vaegan.probability.priors import Prior

NUM_CONSTANT = 200  # training images that show the decoder where to start


@dataclass
class VAEConfig:
    """The probabilistic model and its networks. Shapes are no settings: they follow from the data set."""

    latent_dim: int = 32  # dimensions of z
    likelihood: Likelihood.Config | None = None  # null: what suits the data set
    prior: Prior.Config = MISSING
    posterior: Posterior.Config = MISSING
    encoder: Encoder.Config = MISSING
    decoder: Decoder.Config = MISSING

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "latent_dim", "at least 1", self.latent_dim)


class VAE(nn.Module):
    """Variational autoencoder. Source: Kingma & Welling 2014, arXiv:1312.6114."""

    def __init__(self, config: VAEConfig, image_shape: ImageShape) -> None:
        super().__init__()
        assert config.likelihood is not None, "a run chooses one"
        self.image_shape = image_shape
        self.likelihood = config.likelihood.build(image_shape)
        self.prior = config.prior.build(config.latent_dim, image_shape)
        self.posterior = config.posterior.build(config.latent_dim)
        self.encoder = config.encoder.build(image_shape, self.posterior.num_features)
        self.decoder = config.decoder.build(config.latent_dim, self.likelihood.param_shape)

    def initialize(self, images: Tensor) -> None:
        """Start from training images: the prior as it likes, and the decoder's output at the best constant one.

        Without that, the first steps teach all hidden units that the ground is black, which saturates those of a tanh.

        Args:
            images: In [0, 1], (N, C, H, W), at least `prior.num_initial_images`.

        Raises:
            ValueError: The images do not land on the likelihood's support.
        """
        target = self.likelihood.target(images)
        self.likelihood.check(target)
        self.prior.initialize(target[: self.prior.num_initial_images])
        self.decoder.start_at(fit_constant_output(self.likelihood, target[:NUM_CONSTANT]))

    def encode(self, x: Tensor) -> Distribution:
        """q(z | x), batch (B,), of images on the likelihood's support, (B, C, H, W)."""
        posterior: Distribution = self.posterior(full_precision(self.encoder(x)))
        return posterior

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z), batch (...,), of latents (..., latent_dim)."""
        likelihood: Distribution = self.likelihood(self.decoder_params(z))
        return likelihood

    def decoder_params(self, z: Tensor) -> Tensor:
        """What the likelihood reads, (..., *param_shape), of latents (..., latent_dim)."""
        params = full_precision(self.decoder(z.reshape(-1, z.shape[-1])))
        return params.reshape(*z.shape[:-1], *params.shape[1:])

    def latent_prior(self) -> Distribution:
        """p(z), batch ()."""
        prior: Distribution = self.prior(self.encode)
        return prior


def fit_constant_output(likelihood: Likelihood, target: Tensor) -> Tensor:
    """Decoder output, param_shape, that would suit all targets if it had to be the same for each; at most 6 in size."""
    params = torch.zeros(likelihood.param_shape, requires_grad=True)
    optimizer = torch.optim.Adam([params], lr=0.1)
    for _ in range(60):
        loss = -likelihood(params.unsqueeze(0)).log_prob(target).mean()
        (params.grad,) = torch.autograd.grad(loss, [params])
        optimizer.step()
    return params.detach()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: sums of log-densities over an image would be off by nats in a network's 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
