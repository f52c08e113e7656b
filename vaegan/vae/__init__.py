"""The variational autoencoder: model, bounds on the evidence, objectives, evaluation, training."""
