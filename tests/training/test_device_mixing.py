"""On a GPU, the forward passes of networks and losses mix no devices; checked without a GPU.

Fake tensors have a shape and a device, but no memory. Operations on them raise if they mix devices
or read a value on the host. A backward pass would need a real GPU.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vaegan.config import GROUPS
from vaegan.gan import steps
from vaegan.gan.augmentation import TRANSFORMATIONS, AdaptiveProbability
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior
from vaegan.gan.reconstruction import ReconstructionWeights, reconstruction_loss
from vaegan.vae.model import VAE, VAEConfig

SHAPES = [(1, 28, 28), (3, 32, 32)]
GRAY_ONLY = ("bernoulli", "digits_cnn")
VAE_GROUPS = ["likelihood", "prior", "posterior", "encoder", "decoder", "objective"]
GAN_GROUPS = ["discriminator", "adversarial_loss", "gradient_penalty", "augmentation"]
DEFAULTS = {"discriminator": "conv", "adversarial_loss": "non_saturating"}
DEFAULTS |= {"gradient_penalty": "none", "augmentation": "none", "objective": "elbo"}
DOWNLOADED = ("inception", "clip", "dinov2")  # feature extractors without bundled weights


def choices(*groups):
    """Run a test with each choice of the groups, on gray and on color images."""
    cases = [
        pytest.param(group, name, shape, id=f"{group}={name}, {shape}")
        for group in groups
        for name in sorted({*GROUPS[group].choices} - {*DOWNLOADED})
        for shape in SHAPES[: 1 if name in GRAY_ONLY else 2]
    ]
    return pytest.mark.parametrize("group, name, shape", cases)


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


def images(shape):
    return torch.empty(4, *shape, device="cuda")


@choices(*VAE_GROUPS)
def test_vaes_mix_no_devices(group, name, shape, fake_gpu):
    settings = {} if group == "objective" else {group: config(group, name)}
    vae = real_module(lambda: VAE(shape, VAEConfig(latent_dim=4, **settings)))
    objective = config("objective", name if group == "objective" else None).build()
    fake_gpu(vae)
    output = objective(vae, images(shape), 0.5)
    assert output.loss.device.type == "cuda"
    with torch.no_grad():
        samples = vae.decode(vae.latent_prior().sample((3,)))
        assert samples.mean.device.type == samples.sample().device.type == "cuda"


@choices(*GAN_GROUPS)
def test_gan_losses_mix_no_devices(group, name, shape, fake_gpu, monkeypatch):
    def configured(key):
        return config(key, name if key == group else None)

    def gradient(output, inputs, create_graph):  # a backward pass needs a real GPU
        return (torch.zeros_like(inputs) * output,)

    monkeypatch.setattr(torch.autograd, "grad", gradient)
    vae, discriminator, aggregate = real_module(
        lambda: (VAE(shape), configured("discriminator").build(shape), AggregatePosterior(32, 100))
    )
    augmentation_config = configured("augmentation")
    if hasattr(augmentation_config, "policy"):
        augmentation_config.policy = list(TRANSFORMATIONS)
    augmentation = augmentation_config.build()
    probability = real_module(lambda: AdaptiveProbability(augmentation.config))
    generator = Generator(vae.decoder, vae.likelihood)
    loss = configured("adversarial_loss").build()
    penalty = configured("gradient_penalty").build(shape)
    fake_gpu(vae, discriminator, aggregate, probability)

    def logits(x):
        return discriminator(augmentation(x, probability()))

    fakes = generator(aggregate().sample((4,)))
    terms = steps.discriminator_terms(logits, images(shape), fakes.detach(), loss, penalty, 1.0)
    assert terms.loss.device.type == terms.accuracy.device.type == "cuda"
    weights = ReconstructionWeights(pixels=0.1, features=1.0)

    def reconstruct(x):
        hidden_units = discriminator.hidden_units
        return reconstruction_loss(vae, generator, hidden_units, x, weights)

    terms = steps.generator_terms(logits, fakes, images(shape), loss, reconstruct)
    assert terms.loss.device.type == "cuda"


@choices("feature_extractor")
def test_feature_extractors_mix_no_devices(group, name, shape, fake_gpu):
    vae = real_module(lambda: VAE(shape))
    extractor = real_module(lambda: config(group, name).build(vae, "mnist"))
    fake_gpu(vae, extractor)
    with torch.no_grad():
        assert extractor(images(shape)).device.type == "cuda"


def test_a_tensor_on_the_cpu_is_detected(fake_gpu):
    shape = (3, 32, 32)
    vae = real_module(lambda: VAE(shape))
    fake_gpu(vae)
    objective = config("objective").build()
    vae.decoder.net.append(AddOnes())
    with pytest.raises(RuntimeError, match="(same device|two different devices)"):
        objective(vae, images(shape), 1.0)


class AddOnes(nn.Module):
    def forward(self, x):
        return x + torch.ones(x.shape[1:])
