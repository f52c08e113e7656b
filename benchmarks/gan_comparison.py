"""Compare the speed of a GAN's training step with torch-mimicry and with usual PyTorch code.

    pip install --no-deps torch-mimicry==0.1.16
    OMP_NUM_THREADS=1 python benchmarks/gan_comparison.py [--rounds 5] [--steps 60]

All take the same kind of step on the same networks (vaegan's default generator and discriminator),
with MNIST images, batches of 64, the non-saturating loss, Adam and no gradient penalty, and treat
denormal numbers as zero. vaegan also updates the EMA of the generator, checks each loss and
gradient, and seeds each step. The others:

mimicry       `Trainer` of torch-mimicry 0.1.16, which draws new fakes for the generator and reads
              its logged values back in each step
two passes    a plain PyTorch loop like that of the DCGAN tutorial, with new fakes for the generator
lightning     the same in a LightningModule with manual optimization and `toggle_optimizer`, which
              logs both losses to the progress bar

The others read batches from a DataLoader over tensors. A round times all of them, one after the
other. The table shows the median milliseconds of a step, and the ratio to vaegan: median over
rounds, smallest and largest. Above 1, vaegan is faster.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import types
from pathlib import Path
from time import perf_counter

import lightning.pytorch as pl
import torch
from throughput import compose, execute, median_step, time_vaegan
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.cli.registration import register
from vaegan.data.mnist import Mnist
from vaegan.gan.generator import Generator
from vaegan.images import to_float
from vaegan.runtime.denormals import denormals_as_zero

# Imported by torch-mimicry 0.1.16, but not needed for training; they need TensorFlow and others.
for name in ("torch_mimicry.metrics", "torch_mimicry.datasets", "skimage", "skimage.io"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["skimage"].io = sys.modules["skimage.io"]
from torch_mimicry.nets.gan.gan import BaseDiscriminator, BaseGenerator  # noqa: E402
from torch_mimicry.training import Trainer  # noqa: E402


class StampedBatches:
    """Batches of real images and labels that record when each is requested."""

    def __init__(self, images, batch_size, num_steps):
        dataset = TensorDataset(images, torch.zeros(len(images)))
        self.loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True)
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.stamps = []

    def __len__(self):
        return self.num_steps

    def __iter__(self):
        for _, batch in zip(range(self.num_steps), self.loader, strict=False):
            self.stamps.append(perf_counter())
            yield batch


class MimicryGenerator(BaseGenerator):
    """A generator in torch-mimicry's interface."""

    def __init__(self, net, latent_dim):
        super().__init__(nz=latent_dim, ngf=1, bottom_width=1, loss_type="ns")
        self.net = net

    def forward(self, z):
        return self.net(z)


class MimicryDiscriminator(BaseDiscriminator):
    """A discriminator in torch-mimicry's interface."""

    def __init__(self, net):
        super().__init__(ndf=1, loss_type="ns")
        self.net = net

    def forward(self, x):
        return self.net(x)[:, None]


class UsualModule(pl.LightningModule):
    """A GAN as in Lightning's examples."""

    def __init__(self, generator, discriminator, latent_dim):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.latent_dim = latent_dim

    def configure_optimizers(self):
        return [adam(self.generator), adam(self.discriminator)]

    def training_step(self, batch):
        g_optimizer, d_optimizer = self.optimizers()
        steps = zip((d_optimizer, g_optimizer), (discriminator_loss, generator_loss), strict=True)
        for optimizer, loss_function in steps:
            self.toggle_optimizer(optimizer)
            loss = loss_function(self.generator, self.discriminator, batch[0], self.latent_dim)
            self.log(loss_function.__name__, loss, prog_bar=True)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)


def adam(network):
    return torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.99))


def discriminator_loss(generator, discriminator, real, latent_dim):
    fake = generator(torch.randn(len(real), latent_dim)).detach()
    return softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()


def generator_loss(generator, discriminator, real, latent_dim):
    return softplus(-discriminator(generator(torch.randn(len(real), latent_dim)))).mean()


def train_mimicry(generator, discriminator, batches, latent_dim):
    networks = MimicryGenerator(generator, latent_dim), MimicryDiscriminator(discriminator)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            netD=networks[1],
            netG=networks[0],
            optD=adam(discriminator),
            optG=adam(generator),
            dataloader=batches,
            num_steps=len(batches),
            log_dir=folder,
            device=torch.device("cpu"),
            print_steps=50,
        ).train()


def train_two_passes(generator, discriminator, batches, latent_dim):
    optimizers = adam(discriminator), adam(generator)
    for real, _ in batches:
        steps = zip(optimizers, (discriminator_loss, generator_loss), strict=True)
        for optimizer, loss_function in steps:
            loss = loss_function(generator, discriminator, real, latent_dim)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def train_lightning(generator, discriminator, batches, latent_dim):
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder)
        trainer.fit(UsualModule(generator, discriminator, latent_dim), batches)


OTHERS = {"mimicry": train_mimicry, "two passes": train_two_passes, "lightning": train_lightning}


def time_other(train, run, images, num_steps):
    """Return the milliseconds of a training step."""
    vae = load_vae_checkpoint(run.vae_ckpt, "vae_ckpt").build_vae()
    generator = Generator(vae.decoder, vae.likelihood)
    discriminator = run.discriminator.build(vae.image_shape)
    batches = StampedBatches(images, run.loader.batch_size, num_steps)
    with contextlib.redirect_stdout(io.StringIO()):
        train(generator, discriminator, batches, vae.prior.latent_dim)
    return median_step(batches.stamps)


@denormals_as_zero()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="training steps in each round")
    args = parser.parse_args()
    register()
    images = to_float(Mnist.Config().build().split("train").images)
    with tempfile.TemporaryDirectory() as folder:
        execute(compose("stage=vae", "trainer.max_images=128"), Path(folder))
        words = ["discriminator_warmup=0", "gradient_penalty=none"]
        run = compose(
            "stage=gan", f"vae_ckpt={folder}", *words, f"trainer.max_images={64 * args.steps}"
        )
        rounds = []
        for _ in range(args.rounds):
            row = {"vaegan": time_vaegan(run)[1]}
            for name, train in OTHERS.items():
                row[name] = time_other(train, run, images, args.steps)
            rounds.append(row)
    for name in rounds[0]:
        ratios = [row[name] / row["vaegan"] for row in rounds]
        print(
            f"{name:12}{statistics.median(row[name] for row in rounds):9.2f} ms, ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
