"""The variational autoencoder as a module, without a loss or a trainer.

images  -> encoder -> posterior  q(z | x)
latents -> decoder -> likelihood p(x | z)
                      prior      p(z)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

VALUES_PER_GROUP = 2**20  # pixels times channels of the images processed at once
NUM_CONSTANT_IMAGES = 200  # training images to which the initial constant output is fitted
GRAY_LIKELIHOOD = "bernoulli"  # default for 1-channel images if the data set has no preference
COLOR_LIKELIHOOD = "gaussian"  # the same for images with several channels


@dataclass
class VAEConfig:
    """Settings of the probabilistic model and its networks. Image shapes come from the data set."""

    latent_dim: int = 32  # dimensions of the latent z, >= 1
    likelihood: Likelihood.Config | None = None  # noise model p(x|z); null: data set default
    prior: Prior.Config = field(default_factory=StandardNormal.Config)  # prior p(z)
    # approximate posterior q(z|x)
    posterior: Posterior.Config = field(default_factory=DiagonalNormal.Config)
    # network from images to the parameters of q(z|x)
    encoder: Encoder.Config = field(default_factory=encoders.Conv.Config)
    # network from latents to the parameters of p(x|z)
    decoder: Decoder.Config = field(default_factory=decoders.Conv.Config)

    def __post_init__(self) -> None:
        require(self.latent_dim >= 1, "latent_dim", "at least 1", self.latent_dim)


class VAE(nn.Module):
    """Variational autoencoder.

    Args:
        image_shape: (C, H, W) of the images.
        config: Settings of the model. The default has convolutional networks, 32 latent dimensions
            with a standard normal prior, and a Bernoulli likelihood (Gaussian if C > 1).

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
        param_shape = self.likelihood.param_shape
        self.decoder: Decoder = config.decoder.build(config.latent_dim, param_shape)

    def initialize(self, images: Tensor) -> None:
        """Initialize the prior and the decoder's output bias from training images.

        The decoder's output starts at the constant with the highest likelihood. Otherwise the first
        steps would train every hidden unit to fit the black background, which saturates tanh units.

        Args:
            images: Images in [0, 1], (N, C, H, W), with N >= `prior.num_initial_images`.

        Raises:
            ValueError: The targets do not lie on the likelihood's support.
        """
        target = self.likelihood.target(images)
        self.likelihood.check(target)
        self.prior.initialize(target[: self.prior.num_initial_images])
        self.decoder.set_output(fit_constant_output(self.likelihood, target[:NUM_CONSTANT_IMAGES]))

    def encode(self, x: Tensor) -> Distribution:
        """Return q(z | x), batch shape (B,), event shape (latent_dim,).

        Args:
            x: Images on the likelihood's support, (B, C, H, W).
        """
        return self.posterior(to_full_precision(self.encoder(x)))

    def decode(self, z: Tensor) -> Distribution:
        """Return p(x | z), batch shape (...), event shape (C, H, W).

        Args:
            z: Latents, (..., latent_dim).
        """
        return self.likelihood(self.decoder_params(z))

    def decoder_params(self, z: Tensor) -> Tensor:
        """Return the likelihood's parameters, (..., *param_shape), of latents (..., latent_dim)."""
        params = to_full_precision(self.decoder(z.reshape(-1, z.shape[-1])))
        return params.reshape(*z.shape[:-1], *params.shape[1:])

    def latent_prior(self) -> Distribution:
        """Return p(z), batch shape (), event shape (latent_dim,)."""
        return self.prior(self.encode)


def fit_constant_output(likelihood: Likelihood, target: Tensor) -> Tensor:
    """Fit the constant decoder output, (*param_shape), that maximizes the mean log-likelihood.

    60 Adam steps with lr 0.1 start from 0, so the values are in about [-6, 6]. The gradient is
    summed over groups of images, whose tensors fit in the cache of a CPU.

    Args:
        likelihood: The noise model.
        target: Images on its support, (N, C, H, W).
    """
    params = torch.zeros(likelihood.param_shape, requires_grad=True)
    optimizer = torch.optim.Adam([params], lr=0.1)
    groups = target.split(max(1, VALUES_PER_GROUP // target[0].numel()))
    for _ in range(60):
        params.grad = torch.zeros_like(params)
        for group in groups:
            weight = len(group) / len(target)
            loss = -weight * likelihood(params.unsqueeze(0)).log_prob(group).mean()
            params.grad += torch.autograd.grad(loss, [params])[0]
        optimizer.step()
    return params.detach()


def to_full_precision(x: Tensor) -> Tensor:
    """Convert 16-bit tensors to float32, which sums of log-densities over an image need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Disable autocast in the context, because samples, densities and scores need float32."""
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield
