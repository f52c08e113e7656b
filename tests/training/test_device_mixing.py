"""On a GPU, the networks and losses use no tensor on the CPU; checked without a GPU.

Fake tensors have a shape and a device, but no memory. Operations on them raise if they mix devices
or read a value on the host. Only forward passes are checked: a backward pass needs a real GPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vaegan.config import GROUPS
from vaegan.gan import steps
from vaegan.gan.augmentation import AdaptiveProbability
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior
from vaegan.vae.model import VAE, VAEConfig

SHAPE = (1, 28, 28)
VAE_GROUPS = ["likelihood", "prior", "posterior", "encoder", "decoder", "objective"]
GAN_GROUPS = ["discriminator", "adversarial_loss", "gradient_penalty", "augmentation"]
DEFAULTS = {"discriminator": "conv", "adversarial_loss": "non_saturating"}
DEFAULTS |= {"gradient_penalty": "none", "augmentation": "none", "objective": "elbo"}
DOWNLOADED = ("inception", "clip", "dinov2")  # feature extractors without bundled weights


def choices(*groups):
    """Return a test parameter for each choice of the groups."""
    return [
        pytest.param(group, name, id=f"{group}={name}")
        for group in groups
        for name in sorted(GROUPS[group].choices)
    ]


def config(group, name=None):
    return GROUPS[group].choices[name or DEFAULTS[group]].Config()


@pytest.fixture
def fake_gpu():
    """Enter a mode in which tensors are fake; return a function that moves modules to a GPU."""

    def to_gpu(*modules):
        for module in modules:
            for part in module.modules():
                for name, value in part._parameters.items():
                    if value is not None:
                        part._parameters[name] = nn.Parameter(fake(value), value.requires_grad)
                for name, value in part._buffers.items():
                    if value is not None:
                        part._buffers[name] = fake(value)

    def fake(value):
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="cuda")

    with FakeTensorMode():
        yield to_gpu


def real_module(build):
    """Call a function outside of the fake mode, because it may read values."""
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        return build()


def images():
    return torch.empty(4, *SHAPE, device="cuda")


@pytest.mark.parametrize("group, name", choices(*VAE_GROUPS))
def test_vaes_mix_no_devices(group, name, fake_gpu):
    settings = {} if group == "objective" else {group: config(group, name)}
    vae = real_module(lambda: VAE(SHAPE, VAEConfig(latent_dim=4, **settings)))
    objective = config("objective", name if group == "objective" else None).build()
    fake_gpu(vae)
    output = objective(vae, images(), 0.5)
    assert output.loss.device.type == "cuda"
    with torch.no_grad():
        samples = vae.decode(vae.latent_prior().sample((3,)))
        assert samples.mean.device.type == samples.sample().device.type == "cuda"


@pytest.mark.parametrize("group, name", choices(*GAN_GROUPS))
def test_gan_losses_mix_no_devices(group, name, fake_gpu, monkeypatch):
    def configured(key):
        return config(key, name if key == group else None)

    def gradient(output, inputs, create_graph):  # a backward pass needs a real GPU
        return (torch.zeros_like(inputs) * output,)

    monkeypatch.setattr(torch.autograd, "grad", gradient)
    vae, discriminator, aggregate = real_module(
        lambda: (VAE(SHAPE), configured("discriminator").build(SHAPE), AggregatePosterior(32))
    )
    augmentation = configured("augmentation").build()
    probability = real_module(lambda: AdaptiveProbability(augmentation.config))
    generator = Generator(vae.decoder, vae.likelihood)
    loss = configured("adversarial_loss").build()
    penalty = configured("gradient_penalty").build(SHAPE)
    fake_gpu(vae, discriminator, aggregate, probability)

    def logits(x):
        return discriminator(augmentation(x, probability()))

    fakes = generator(aggregate().sample((4,)))
    terms = steps.discriminator_terms(logits, images(), fakes.detach(), loss, penalty, 1.0)
    assert terms.loss.device.type == terms.accuracy.device.type == "cuda"
    terms = steps.generator_terms(logits, fakes, images(), loss, vae, generator, 0.1)
    assert terms.loss.device.type == "cuda"


@pytest.mark.parametrize("name", sorted({*GROUPS["feature_extractor"].choices} - {*DOWNLOADED}))
def test_feature_extractors_mix_no_devices(name, fake_gpu):
    vae = real_module(lambda: VAE(SHAPE))
    extractor = real_module(lambda: config("feature_extractor", name).build(vae, "mnist"))
    fake_gpu(vae, extractor)
    with torch.no_grad():
        assert extractor(images()).device.type == "cuda"


def test_a_tensor_on_the_cpu_is_detected(fake_gpu):
    vae = real_module(lambda: VAE(SHAPE))
    fake_gpu(vae)
    objective = config("objective").build()
    vae.decoder.net.append(AddOnes())
    with pytest.raises(RuntimeError, match="(same device|two different devices)"):
        objective(vae, images(), 1.0)


class AddOnes(nn.Module):
    def forward(self, x):
        return x + torch.ones(SHAPE)
