"""Probability models: likelihoods p(x | z), priors p(z), approximate posteriors q(z | x).

Each is a module whose forward returns a distribution of `torch.distributions`:

    likelihood(decoder output)   over images x,  event shape (C, H, W)
    prior(encode)                over latents z, event shape (latent_dim,), batch shape ()
    posterior(encoder output)    over latents z, event shape (latent_dim,), batch shape (B,)

Log-densities are in nats, summed over the event.
"""
