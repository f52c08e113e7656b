"""Train a VAE by its ELBO, then a GAN whose generator starts as the VAE's decoder."""

__version__ = "0.1.0"
