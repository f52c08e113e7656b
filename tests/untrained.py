"""Checkpoints of untrained models, for tests that need no training."""

import torch
from torch import nn

from vaegan.checkpoints.checkpoint import header
from vaegan.config import GROUPS, to_plain
from vaegan.data.shapes import Shapes
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior
from vaegan.gan.noise_inputs import NoisyDecoder
from vaegan.networks.blocks import SkipExcitation
from vaegan.stages.training_runs import VAERun
from vaegan.vae.model import VAE
from vaegan.vae.training_config import resolve_data_defaults

SMALL = {"width": 8, "hidden_dim": 16}
SIZES = {"conv": SMALL, "resnet": SMALL, "mlp": {"hidden_dims": [16]}}


def component(group, name, **settings):
    """Return the config of a component."""
    return GROUPS[group].choices[name].Config(**settings)


def make_run(shape=(1, 28, 28), network="conv", latent_dim=4, **components):
    """Return the settings of a VAE with small networks. Components are given by group."""
    channels, height, width = shape
    nets = {group: component(group, network, **SIZES[network]) for group in ("encoder", "decoder")}
    data = Shapes.Config(channels=channels, height=height, width=width, num_test=20)
    likelihood = component("likelihood", "bernoulli" if channels == 1 else "gaussian")
    settings = {"likelihood": likelihood, **nets, **components}
    run = VAERun(dataset=data, latent_dim=latent_dim, **settings).resolve_defaults()
    return resolve_data_defaults(run, is_natural=False)


def build(run, seed=0):
    """Return a VAE with random weights that are large enough for varied images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = VAE(run.dataset.build().image_shape, run)
        with torch.no_grad():
            for parameter in vae.decoder.parameters():
                parameter.mul_(1.5)
        for layer in vae.decoder.modules():
            if isinstance(layer, SkipExcitation):
                nn.init.normal_(layer.last.weight, std=0.3)
    return vae.eval()


def save(path, stage, run, state, **settings):
    """Write a checkpoint file with additional settings; return its path."""
    source = run.dataset.build()
    plain = to_plain(run)
    settings = plain | {"feature_extractor": None, **settings}
    entry = header(stage, source.image_shape, settings, plain, class_names=source.class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"vaegan": entry, "epoch": 0, "state_dict": state}, path)
    return path


def with_prefix(module, prefix):
    return {f"{prefix}{name}": value for name, value in module.state_dict().items()}


def save_vae(path, run):
    """Write the checkpoint of an untrained VAE; return its path."""
    return save(path, "vae", run, with_prefix(build(run), "vae."))


def build_noisy(run, seed=1):
    """Return a generator with noise inputs and random weights."""
    vae = build(run, seed)
    decoder = NoisyDecoder(vae.decoder, run.latent_dim)
    with torch.no_grad():
        for parameter in decoder.noise.parameters():
            parameter.fill_(0.3)
    return Generator(decoder, vae.likelihood).eval()


def save_gan(path, run, has_aggregate=False, has_noise=False, num_centers=0):
    """Write the checkpoint of an untrained GAN; return its path."""
    vae, other = build(run), build(run, seed=1)
    generator = build_noisy(run) if has_noise else Generator(other.decoder, other.likelihood)
    state = with_prefix(vae, "vae.") | with_prefix(generator, "ema.module.")
    if has_aggregate:
        aggregate = AggregatePosterior(run.latent_dim, num_centers)
        aggregate.mean += 1
        if num_centers:
            aggregate.centers += torch.arange(num_centers).unsqueeze(1)
        state |= with_prefix(aggregate, "aggregate.")
    return save(path, "gan", run, state, **({"noise_inputs": True} if has_noise else {}))
