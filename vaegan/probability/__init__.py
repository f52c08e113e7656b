"""Probability models: likelihoods p(x | z), priors p(z) and approximate posteriors q(z | x).

Each model is a module whose forward returns a `torch.distributions.Distribution`:

    likelihood(decoder output)   over images x,  batch shape (B,), event shape (C, H, W)
    prior(encode)                over latents z, batch shape (),   event shape (latent_dim,)
    posterior(encoder output)    over latents z, batch shape (B,), event shape (latent_dim,)

`log_prob` is in nats and summed over the event dimensions, so it is in nats per image.
"""
