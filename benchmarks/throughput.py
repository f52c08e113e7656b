"""Compare the training of both stages with plain PyTorch loops that do equal work.

    OMP_NUM_THREADS=1 python benchmarks/throughput.py [--rounds 3] [--fraction 0.2] [--output FILE]
    OMP_NUM_THREADS=1 python benchmarks/throughput.py --only vae  # or gan, "tiny vae", "tiny gan"

Each round trains a fraction of an MNIST epoch with vaegan and with a plain loop, alternately and in
one process. Both take the same steps on the same networks, validate on the same images, save image
grids and two checkpoints, and treat denormal numbers as zero; the GAN has no discriminator warm-up.
Only vaegan logs, shows a progress bar (in a terminal), checks each loss and gradient, and seeds
each step.

epoch      a whole epoch, including the validation and the checkpoints at its end
step       one training step: median over an epoch
tiny step  the same with networks of one channel and two images per batch, which cost almost
           nothing: the difference is what vaegan and Lightning add to each step

The table shows medians over rounds in milliseconds, and the ratio plain loop / vaegan: median over
rounds, smallest and largest. A ratio of 1 means equal speed; below 1, vaegan is slower.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import hydra
import lightning.pytorch as pl
import torch
from torchvision.transforms.v2.functional import to_pil_image

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.cli.registration import register, to_run_config
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.mnist import Mnist
from vaegan.gan.ema import GeneratorEMA
from vaegan.images import to_float, to_uint8
from vaegan.runtime.denormals import denormals_as_zero
from vaegan.stages import gan, vae
from vaegan.stages.gan_components import build_components
from vaegan.stages.stage_table import run_stage
from vaegan.stages.training_runs import VAERun
from vaegan.training.image_grids import make_image_grids
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.vae.training_config import resolve_data_defaults

CONF = Path(__file__).parents[1] / "conf"
TINY = ("encoder.width=1", "decoder.width=1", "encoder.hidden_dim=1", "decoder.hidden_dim=1")
TINY += ("latent_dim=2", "loader.batch_size=2", "discriminator.width=1")
TINY_FRACTION = 0.01  # of an epoch, which has many steps of two images
NUM_WARMUP_STEPS = 5  # per epoch, not timed


def compose(*overrides):
    """Return the typed config of a command line, with the defaults of VAE training filled in."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = to_run_config(hydra.compose("config", list(overrides)))
    if isinstance(run, VAERun):
        return resolve_data_defaults(run, run.dataset.component.IS_NATURAL)
    return run


def execute(run, folder):
    """Run a stage without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        run_stage(run, folder)


def median_step(stamps):
    """Return the median time between the starts of two steps, in milliseconds."""
    return 1e3 * statistics.median(b - a for a, b in pairwise(stamps[NUM_WARMUP_STEPS:]))


def time_vaegan(run):
    """Return the milliseconds of `Trainer.fit` and of a training step."""
    seconds, stamps = [], []
    fit, seed_batch = pl.Trainer.fit, PerStepSeeding.on_train_batch_start

    def timed_fit(*args, **kwargs):
        start = time.perf_counter()
        fit(*args, **kwargs)
        seconds.append(time.perf_counter() - start)

    def stamp(*args):
        stamps.append(time.perf_counter())
        seed_batch(*args)

    pl.Trainer.fit, PerStepSeeding.on_train_batch_start = timed_fit, stamp
    try:
        with tempfile.TemporaryDirectory() as folder:
            execute(run, Path(folder))
    finally:
        pl.Trainer.fit, PerStepSeeding.on_train_batch_start = fit, seed_batch
    return 1e3 * seconds[0], median_step(stamps)


def batches(data, fraction):
    """Yield shuffled training batches without a data loader."""
    images, size = data.splits["train"].images, data.loader.batch_size
    num_batches = int(fraction * data.num_train_batches)
    for indices in torch.randperm(len(images)).split(size)[:num_batches]:
        yield to_float(images[indices]).contiguous(memory_format=torch.channels_last)


def validation_batches(data):
    """Yield validation batches without a data loader."""
    for images in data.splits["val"].images.split(data.loader.eval_batch_size):
        yield to_float(images).contiguous(memory_format=torch.channels_last)


def save_epoch(data, model, latents, generate, modules, optimizers):
    """Save image grids, and the best and the last checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        grids = make_image_grids(model, latents, generate, data.example_images(32))
        for name, grid in grids.items():
            to_pil_image(to_uint8(grid)).save(f"{folder}/{name}.png")
        for name in ("best", "last"):
            states = [part.state_dict() for part in (*modules, *optimizers)]
            torch.save(states, f"{folder}/{name}.ckpt")


def time_plain_vae(run, data):
    """Return the milliseconds of an epoch and of a step in a plain loop."""
    model = vae.build_initial_vae(run, data).to(memory_format=torch.channels_last)
    objective = run.objective.build()
    optimizer, schedule = run.optimizer.build(model.parameters(), lambda: data.num_train_batches)
    stamps = []
    start = time.perf_counter()
    for i, x in enumerate(batches(data, run.trainer.limit_train_batches)):
        stamps.append(time.perf_counter())
        loss = objective(model, x, run.objective.beta_at(i / data.num_train_batches)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        for x in validation_batches(data):
            objective(model, x, 1.0).bound.sum()
        prior = model.latent_prior()
        save_epoch(data, model, prior, lambda z: model.decode(z).mean, [model], [optimizer])
    return 1e3 * (time.perf_counter() - start), median_step(stamps)


def time_plain_gan(run, data):
    """Return the milliseconds of an epoch and of a step in a plain loop."""
    checkpoint = load_vae_checkpoint(run.vae_ckpt, "vae_ckpt")
    model = checkpoint.build_vae()
    run = gan.resolve_training(run, data, model)
    parts, _ = build_components(run, run, model, checkpoint.build_vae, data, 0, torch.device("cpu"))
    model.requires_grad_(False)
    generator = parts.generator.to(memory_format=torch.channels_last)
    discriminator = parts.discriminator.to(memory_format=torch.channels_last)
    ema = GeneratorEMA(generator, run.ema_half_life, run.ema_rampup, run.loader.batch_size)
    num_steps = data.num_train_batches
    g_optimizer, g_schedule = run.generator_optimizer.build(
        generator.decoder.parameters(), lambda: num_steps
    )
    d_optimizer, d_schedule = run.discriminator_optimizer.build(
        discriminator.parameters(), lambda: num_steps
    )
    loss, penalty, prior = parts.loss, parts.penalty, parts.latents()
    scorer = gan.build_scorer(run.feature_extractor, model, data)
    scorer.start("val", torch.device("cpu"))
    stamps = []
    start = time.perf_counter()
    for i, x in enumerate(batches(data, run.trainer.limit_train_batches)):
        stamps.append(time.perf_counter())
        fake = generator(prior.sample((len(x),)))
        logits = discriminator(torch.cat([x, fake.detach()]))
        real_logits, fake_logits = logits.chunk(2)
        d_loss = loss.discriminator(real_logits, fake_logits).mean()
        if weight := penalty.weight(i, 0.0):
            d_loss = d_loss + weight * penalty(discriminator, x, fake.detach()).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        d_schedule.step()
        discriminator.requires_grad_(False)
        g_optimizer.zero_grad()
        loss.generator(discriminator(fake), real_logits.detach()).mean().backward()
        g_optimizer.step()
        g_schedule.step()
        discriminator.requires_grad_(True)
        ema.update(generator, i)
    with torch.no_grad():
        num_scored = 0
        for x in validation_batches(data):
            indices = num_scored + torch.arange(len(x))
            scorer.update(ema.module(prior.sample((len(x),))), indices)
            num_scored += len(x)
        scorer.compute()
        optimizers = [g_optimizer, d_optimizer]
        save_epoch(data, model, prior, ema.module, [generator, discriminator, ema], optimizers)
    return 1e3 * (time.perf_counter() - start), median_step(stamps)


def compare(name, run, time_plain, rounds):
    """Print and return the times of vaegan and of a plain loop."""
    data = ImageDataModule(Mnist.Config().build(), run.loader, seed=0)
    pairs = [(time_vaegan(run), time_plain(run, data)) for _ in range(rounds)]
    table = {}
    for i, unit in enumerate(("epoch", "step")):
        ours, plain = ([times[i] for times in side] for side in zip(*pairs, strict=True))
        ratios = [b / a for a, b in zip(ours, plain, strict=True)]
        row = {"vaegan_ms": statistics.median(ours), "plain_ms": statistics.median(plain)}
        row |= {"ratio": statistics.median(ratios), "range": (min(ratios), max(ratios))}
        table[f"{name} {unit}"] = row
        print(
            f"{name + ' ' + unit:15} vaegan {row['vaegan_ms']:9.2f} ms, plain loop "
            f"{row['plain_ms']:9.2f} ms, ratio {row['ratio']:.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f})",
            flush=True,
        )
    return table


def build_runs(nets, fraction, folder):
    """Return the run and the plain loop of each stage; the GAN starts from a VAE in the folder."""
    words = ["trainer.max_epochs=1", *(word for word in nets if "batch_size" in word)]
    of_vae = [word for word in nets if word.startswith(("encoder.", "decoder.", "latent_dim"))]
    of_gan = [word for word in nets if word.startswith("discriminator.")]
    vae_words = ["stage=vae", "objective.beta_warmup_epochs=0", *words, *of_vae]
    execute(compose(*vae_words, "trainer.limit_train_batches=0.01"), Path(folder))
    settings = ["discriminator_warmup=0", "trainer.val_check_interval=1"]
    gan_words = ["stage=gan", f"vae_ckpt={folder}", *settings, *words, *of_gan]
    return {
        "vae": (compose(*vae_words, fraction), time_plain_vae),
        "gan": (compose(*gan_words, fraction), time_plain_gan),
    }


@denormals_as_zero()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=("vae", "gan", "tiny vae", "tiny gan"))
    args = parser.parse_args()
    register()
    table = {}
    for prefix, nets, fraction in (("", (), args.fraction), ("tiny ", TINY, TINY_FRACTION)):
        if args.only not in (None, f"{prefix}vae", f"{prefix}gan"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            runs = build_runs(nets, f"trainer.limit_train_batches={fraction}", folder)
            for stage, (run, time_plain) in runs.items():
                if args.only in (None, prefix + stage):
                    table |= compare(prefix + stage, run, time_plain, args.rounds)
    if args.output:
        args.output.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
