"""Variational autoencoder: model, bounds on log p(x), objectives, evaluation and training."""
