"""Compare the speed of both stages with plain PyTorch loops on the same networks.

    python benchmarks/throughput.py [ROUNDS]

A vaegan run also logs, shows a progress bar, saves images and writes checkpoints. The plain loop
only makes the same batches, takes the same steps and scores the same validation images. Each round
trains one epoch of MNIST with both, in one process. The result is the ratio of median images/s.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import hydra
import lightning.pytorch as pl
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.cli.registration import register, to_run_config
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.mnist import Mnist
from vaegan.images import to_float
from vaegan.stages.gan import build_components, build_scorer, resolve_training
from vaegan.stages.stage_table import run_stage
from vaegan.vae.model import VAE

CONF = Path(__file__).parents[1] / "conf"


def compose(*overrides):
    """Return the typed config of a command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return to_run_config(hydra.compose("config", list(overrides)))


def time_run(run):
    """Return the seconds that a vaegan run spends in Trainer.fit."""
    seconds = []
    original_fit = pl.Trainer.fit

    def timed_fit(*args, **kwargs):
        start = time.perf_counter()
        original_fit(*args, **kwargs)
        seconds.append(time.perf_counter() - start)

    pl.Trainer.fit = timed_fit
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_stage(run, Path(folder))
    finally:
        pl.Trainer.fit = original_fit
    return seconds[0]


def batches(data, batch_size):
    """Yield shuffled training batches without a data loader."""
    images = data.splits["train"].images
    for indices in torch.randperm(len(images)).split(batch_size):
        if len(indices) == batch_size:
            yield to_float(images[indices]).contiguous(memory_format=torch.channels_last)


def validation_batches(data, batch_size):
    """Yield validation batches without a data loader."""
    for images in data.splits["val"].images.split(batch_size):
        yield to_float(images).contiguous(memory_format=torch.channels_last)


def time_plain_vae(run, data):
    """Return the seconds of a VAE epoch in a plain PyTorch loop."""
    vae = VAE(data.source.image_shape, run).to(memory_format=torch.channels_last)
    objective = run.objective.build()
    optimizer, schedule = run.optimizer.build(vae.parameters(), lambda: data.num_train_batches)
    start = time.perf_counter()
    for i, x in enumerate(batches(data, run.loader.batch_size)):
        loss = objective(vae, x, run.objective.beta_at(i / data.num_train_batches)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        sum(
            objective(vae, x, 1.0).bound.sum()
            for x in validation_batches(data, run.loader.eval_batch_size)
        )
    return time.perf_counter() - start


def time_plain_gan(run, data):
    """Return the seconds of a GAN epoch in a plain PyTorch loop."""
    run = resolve_training(run, data)
    checkpoint = load_vae_checkpoint(run.vae_ckpt, "vae_ckpt")
    vae = checkpoint.build_vae()
    components, _ = build_components(run, run.warm_start, vae, checkpoint.build_vae, data, 0)
    generator = components.generator.to(memory_format=torch.channels_last)
    vae.requires_grad_(False)
    discriminator = components.discriminator.to(memory_format=torch.channels_last)
    decay = 0.5 ** (run.loader.batch_size / run.ema_half_life)
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
    g_optimizer, _ = run.generator_optimizer.build(generator.decoder.parameters(), lambda: 1)
    d_optimizer, _ = run.discriminator_optimizer.build(discriminator.parameters(), lambda: 1)
    loss, penalty = components.loss, components.penalty
    scorer = build_scorer(run.feature_extractor, vae, data)
    scorer.start("val", torch.device("cpu"))
    start = time.perf_counter()
    for i, x in enumerate(batches(data, run.loader.batch_size)):
        is_warmup = i * run.loader.batch_size < run.discriminator_warmup
        with torch.set_grad_enabled(not is_warmup):
            fake = generator(vae.latent_prior().sample((len(x),)))
        real_logits, fake_logits = discriminator(torch.cat([x, fake.detach()])).chunk(2)
        d_loss = loss.discriminator(real_logits, fake_logits).mean()
        if weight := penalty.weight(i, 0.0):
            d_loss = d_loss + weight * penalty(discriminator, x, fake).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        if not is_warmup:
            discriminator.requires_grad_(False)
            g_optimizer.zero_grad()
            loss.generator(discriminator(fake), real_logits).mean().backward()
            g_optimizer.step()
            discriminator.requires_grad_(True)
            ema.update_parameters(generator)
    with torch.no_grad():
        num_scored = 0
        for x in validation_batches(data, run.loader.eval_batch_size):
            indices = num_scored + torch.arange(len(x))
            scorer.update(ema(vae.latent_prior().sample((len(x),))), indices)
            num_scored += len(x)
    scorer.compute()
    return time.perf_counter() - start


def compare(name, run, time_plain_loop, rounds):
    """Print the speed of a vaegan run relative to a plain loop."""
    run = run.resolve_defaults()
    data = ImageDataModule(Mnist.Config().build(), run.loader, seed=0)
    num_images = data.num_train_batches * run.loader.batch_size
    vaegan_speeds, plain_speeds = [], []
    for i in range(rounds):
        vaegan_speeds.append(num_images / time_run(run))
        plain_speeds.append(num_images / time_plain_loop(run, data))
        print(
            f"{name} round {i}: vaegan {vaegan_speeds[-1]:.0f}, "
            f"plain loop {plain_speeds[-1]:.0f} images/s",
            flush=True,
        )
    ratio = statistics.median(vaegan_speeds) / statistics.median(plain_speeds)
    print(
        f"{name}: vaegan / plain loop = {ratio:.3f} (medians of {rounds} rounds)",
        flush=True,
    )


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    register()
    vae_run = compose("stage=vae", "trainer.max_epochs=1")
    compare("stage vae", vae_run, time_plain_vae, rounds)
    with tempfile.TemporaryDirectory() as folder:
        run_stage(vae_run, Path(folder))
        gan_run = compose(
            "stage=gan",
            f"vae_ckpt={folder}",
            "trainer.max_epochs=1",
            "trainer.val_check_interval=1",
        )
        compare("stage gan", gan_run, time_plain_gan, rounds)


if __name__ == "__main__":
    main()
