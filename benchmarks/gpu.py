"""Check correctness and speed of both stages on one GPU.

    python benchmarks/gpu.py fork crash syncs repeat graphs --seconds 240
    python benchmarks/gpu.py speed profile numbers metrics --seconds 220

Together these two commands take at most about 8 minutes. Nothing new begins after `--seconds`; what
is left out is named at the end of a section. `--only` takes a regular expression for the names of
cases. The profilers' tables, and the speeds as JSON, go to the folder `--output`.

fork      one process per device: the command line leaves CUDA alone until the processes have
          started, and each of them can use it. Must come first.
crash     every component once and many options, on small images: ok, or the exception and its place
syncs     how often a training step waits for the GPU, by place; the fewer, the better. Of 50 steps,
          one of which is logged.
repeat    the same run twice, and one that was stopped and resumed: equal, or how far off
graphs    training with CUDA graphs and without: equal, or how far off
speed     milliseconds per training step, images per second, TFLOP/s of convolutions and matrix
          products, peak memory: medians over blocks of steps, by network and precision
profile   kernels per step, and the share of the time in which the GPU has work: far below 1 means
          that Python and the launches of kernels are the limit. The tables say what Python does.
numbers   the same images and weights on the CPU and the GPU, in nats; test scores by precision
metrics   seconds that the scores of generated images take

Without a GPU the same code runs on the CPU with few steps and small networks, to see that it works.
"""

import argparse
import collections
import contextlib
import cProfile
import functools
import gc
import io
import json
import logging
import os
import pstats
import re
import statistics
import tempfile
import time
import traceback
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import hydra
import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from PIL import Image
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.cli.registration import register, to_run_config
from vaegan.config import GROUPS
from vaegan.data.mnist import Mnist
from vaegan.gan.augmentation import DiffAugment
from vaegan.gan.module import GANModule
from vaegan.images import to_float
from vaegan.metrics.digits_cnn import load_digits_cnn
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.scores import (
    compute_scores,
    frechet_distance,
    kernel_distance,
    manifold_scores,
)
from vaegan.runtime.launch import launch
from vaegan.runtime.seeding import RankInvariantNoise, image_noise, seed_global
from vaegan.stages.stage_table import run_stage
from vaegan.vae.training_config import resolve_data_defaults

CONF = Path(__file__).parents[1] / "conf"
HAS_GPU = torch.cuda.device_count() > 0  # asks the driver's library and leaves CUDA alone
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
WORK = tempfile.TemporaryDirectory()  # of all runs; removed at the end

DRY = [  # without a GPU
    "dataset=shapes",
    "dataset.height=16",
    "dataset.width=16",
    "dataset.num_train=768",
    "encoder.width=4",
    "decoder.width=4",
    "discriminator.width=4",
]
SETUPS = {  # words of the command line
    "default": ["gan.discriminator_warmup=0", "gan.trainer.val_check_interval=1.0"],
    "color64": [  # the networks and losses of experiment=folder64, on synthetic images
        "dataset=shapes",
        "dataset.channels=3",
        "dataset.height=64",
        "dataset.width=64",
        "dataset.num_train=12800",
        "latent_dim=128",
        "likelihood=gaussian",
        "adversarial_loss=relativistic",
        "gradient_penalty=r1_r2",
        "gradient_penalty.interval=4",
        "augmentation=diff_augment",
        "gan.discriminator_warmup=0",
        "gan.trainer.val_check_interval=1.0",
    ],
    "r3gan_64": [  # on synthetic images
        "experiment=r3gan",
        "dataset=shapes",
        "dataset.channels=3",
        "dataset.height=64",
        "dataset.width=64",
        "dataset.num_train=6400",
        "likelihood=gaussian",
        "gradient_penalty.gamma=0.5",
        "gan.discriminator_warmup=0",
    ],
}
SMALL = [  # runs of a second
    "dataset=shapes",
    "dataset.height=16",
    "dataset.width=16",
    "dataset.num_train=256",
    "dataset.num_val=100",
    "dataset.num_test=100",
    "latent_dim=8",
    "vae.trainer.max_epochs=1",
    "vae.loader.batch_size=64",
    "vae.trainer.log_every_n_steps=2",
    "gan.trainer.max_epochs=2",
    "gan.trainer.log_every_n_steps=2",
]


class Report:
    """Print results, and decide which cases still fit in the time limit."""

    def __init__(self, seconds, only, folder):
        self.start = time.monotonic()
        self.seconds = seconds
        self.only = only
        self.folder = folder
        self.late = []

    def say(self, text):
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", flush=True)

    def may_begin(self, case):
        """True if a case is selected and the time limit is not reached."""
        if not re.search(self.only, case):
            return False
        is_late = time.monotonic() - self.start > self.seconds
        if is_late:
            self.late.append(case)
        return not is_late

    def list_late(self):
        """Print the cases that were skipped for lack of time."""
        if self.late:
            self.say(f"no time for: {'; '.join(self.late)}")
        self.late.clear()


# Runs


def compose(*words):
    """Return the run of a command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return to_run_config(hydra.compose("config", list(words)))


def new_folder():
    return Path(tempfile.mkdtemp(dir=WORK.name))


def setup_words(name):
    return SETUPS[name] + ([] if HAS_GPU else DRY)


def execute(run, folder=None):
    """Execute a run without its output; return its result."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return run_stage(run, folder or new_folder())


@functools.cache
def trained_vae(*words):
    """Return the folder of a VAE that was trained for an epoch."""
    folder = new_folder()
    execute(compose(*words, "vae.trainer.max_epochs=1").vae_run(), folder)
    return str(folder)


def stage_run(stage, words, *more):
    """Return the run of stage vae or gan of a pipeline; its GAN starts from a shared VAE."""
    pipeline = compose(*words, *more)
    if stage == "gan":
        return pipeline.gan_run(trained_vae(*words))
    run = pipeline.vae_run()
    return resolve_data_defaults(run, run.dataset.component.IS_NATURAL)


class Stop(Exception):
    """Raised to stop training after the requested number of steps."""


def train_steps(run, num_steps, before_step, folder=None):
    """Train a run for some steps, without the validation before the first one.

    `before_step` is called with the number of steps done and the module, at the end once more.
    """
    num_done = 0
    advance = _TrainingEpochLoop.advance

    def counted(loop, data_fetcher):
        nonlocal num_done
        before_step(num_done, loop.trainer.lightning_module)
        if num_done == num_steps:
            raise Stop
        num_done += 1
        advance(loop, data_fetcher)

    patches = contextlib.ExitStack()
    patches.enter_context(mock.patch.object(_TrainingEpochLoop, "advance", counted))
    patches.enter_context(mock.patch.object(pl.Trainer, "validate", lambda *args, **kwargs: None))
    with patches, contextlib.suppress(Stop):
        execute(run, folder)
        raise RuntimeError(f"the run has fewer than {num_steps} steps")


def synchronize():
    if HAS_GPU:
        torch.cuda.synchronize()


LIBRARIES = ("/lightning/", "/torch/", "/zuko/", "/rich/", "/torchmetrics/")


def place(frames):
    """Return the innermost frame, and those in this package that led there, as text."""
    package = str(CONF.with_name("vaegan"))
    found = []  # whether it is in this package, and the text
    for frame in reversed(frames):
        name = frame.filename
        library = next((part for part in LIBRARIES if part in name), None)
        if name.startswith(package):
            found.append((True, f"vaegan{name.removeprefix(package)}:{frame.lineno}"))
        elif library:
            found.append((False, f"{name[name.rindex(library) + 1 :]}:{frame.lineno}"))
    texts = [text for _, text in found]
    own = [text for is_own, text in found[1:] if is_own]
    return " < ".join(texts[:1] + (own or texts[1:])[:2])


def describe_error(error):
    """Return the kind, the first line and the place of an exception."""
    first_line = (str(error).splitlines() or [""])[0]
    where = place(traceback.extract_tb(error.__traceback__))
    return f"{type(error).__name__}: {first_line[:300]} at {where}"


# Sections


def fork(report):
    """Start two workers as trainer.devices=2 does, and use the first GPU in both."""
    if torch.cuda.is_initialized():
        report.say("fork must come first")
        return
    compose("trainer.devices=2")
    is_untouched = not torch.cuda.is_initialized()
    report.say(f"fork: the command line leaves CUDA alone: {is_untouched}")
    for finding in launch(check_worker, 2, 1, "python train.py"):
        report.say(f"fork: {finding}")


def check_worker():
    """Return what works in a forked process; the second one only uses the device."""
    device = torch.device("cuda", 0) if HAS_GPU else DEVICE
    torch.ones(1, device=device).item()
    if os.environ["LOCAL_RANK"] != "0":
        return []
    findings = [f"{DEVICE} in the workers: ok"]
    for check in (communicate, compare_noise, augment):
        try:
            findings.append(f"{check.__name__}: {check(device)}")
        except Exception as error:
            findings.append(f"{check.__name__}: CRASH {describe_error(error)}")
    return findings


def communicate(device):
    """Create one process group with the GPU backend and one with gloo, and use both."""
    dist.init_process_group("nccl" if HAS_GPU else "gloo", rank=0, world_size=1)
    dist.all_reduce(torch.tensor([1, 2]), group=dist.new_group(backend="gloo"))
    dist.broadcast_object_list(["text"], src=0)
    dist.destroy_process_group()
    return "ok"


def compare_noise(device):
    """Compare the noise drawn by two ranks with that of a single process."""
    seed_global(device, 0)
    whole = torch.randn(64, 3, 8, 8, device=device)
    shares = []
    for rank in range(2):
        with RankInvariantNoise((0,), device, rank, 2, 32):
            shares.append(torch.randn(32, 3, 8, 8, device=device))
    is_same = torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)
    return "equal" if is_same else "DIFFERENT"


def augment(device):
    """Augment real and fake images of one of two ranks."""
    augmentation = DiffAugment(DiffAugment.Config())
    with RankInvariantNoise((0,), device, 0, 2, 32):
        augmentation(torch.rand(64, 3, 32, 32, device=device), 1.0)
    return "ok"


VAE_GROUPS = ("likelihood", "prior", "posterior", "objective", "encoder", "decoder")
GAN_GROUPS = ("discriminator", "adversarial_loss", "gradient_penalty", "augmentation")
NEEDS = {"prior=vamp_prior": " prior.num_pseudo_inputs=20"}
PIPELINE_OPTIONS = (
    "trainer.precision=bf16-mixed",
    "trainer.precision=16-mixed",
    "vae.loader.device_share=0 gan.loader.device_share=0 gan.loader.num_workers=2",
    "likelihood=gaussian likelihood.scale=optimal",
    "likelihood=gaussian likelihood.scale=per_channel dataset.channels=3",
    "likelihood=gaussian likelihood.scale=per_pixel",
    "likelihood=discretized_logistic_mixture dataset.channels=3 trainer.precision=bf16-mixed",
    "prior=flow posterior=flow trainer.precision=bf16-mixed",
    "posterior=full_normal prior=vamp_prior prior.num_pseudo_inputs=20",
    "prior=flow prior.kind=affine",
    "encoder=resnet decoder=resnet encoder.normalization=group decoder.normalization=group",
    "encoder=resnet decoder=resnet discriminator=resnet trainer.precision=bf16-mixed",
    "objective.free_bits=0.1 callbacks=[device_stats]",
    "trainer.cuda_graphs=false",
    "trainer.compile=true trainer.precision=bf16-mixed",
)
GAN_OPTIONS = (
    "augmentation=diff_augment gradient_penalty=none",
    "augmentation=diff_augment gan.emphasis.saturation=3 gan.emphasis.sharpness=4",
    "trainer.precision=bf16-mixed augmentation=diff_augment",
    "trainer.precision=bf16-mixed gradient_penalty=r1_r2 adversarial_loss=relativistic",
    "trainer.precision=bf16-mixed gradient_penalty=wgan_gp adversarial_loss=wasserstein",
    "trainer.precision=16-mixed gan.gradient_clip=1.0",
    "trainer.precision=16-mixed gan.trainer.skip_bad_steps=2",
    "augmentation=diff_augment augmentation.adaptive_target=0.6",
    "augmentation=diff_augment gradient_penalty=r1_r2 gradient_penalty.interval=1",
    "discriminator.spectral_norm=true",
    "discriminator.spectral_norm=true trainer.precision=bf16-mixed",
    "gan.gradient_accumulation=2 gan.discriminator_steps=2",
    "gan.warm_start.reconstruction_weight=1.0 gan.warm_start.feature_weight=1.0",
    "gan.warm_start.freeze_layers=2 gan.warm_start.freeze_images=128",
    "gan.warm_start.aggregate_posterior=true",
    "gan.warm_start.generator=none gan.warm_start.discriminator=false",
    "gan.discriminator_warmup_accuracy=0.8",
    "gan.score_every_n_images=128 gan.checkpoint.every_n_images=128",
)


def crash(report):
    """Run every component once; report exceptions and warnings."""
    num_ok = 0
    seen = collections.Counter()
    for name, make_run in crash_cases():
        if not report.may_begin(name):
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                execute(make_run())
                outcome = "ok"
                num_ok += 1
            except Exception as error:
                outcome = f"CRASH {describe_error(error)}"
        report.say(f"crash: {name}: {outcome}")
        seen.update(str(warning.message).splitlines()[0][:200] for warning in caught)
    for message, num in seen.most_common():
        report.say(f"crash: warned {num} times: {message}")
    report.say(f"crash: {num_ok} are ok")


def crash_cases():
    """Yield the name of each case and a function that returns its run config."""
    default = compose(*SMALL)

    def choices(groups):
        for group in groups:
            chosen = getattr(default, group)  # None if the data set chooses
            for choice in GROUPS[group].choices:
                if chosen is None or choice != chosen.name:
                    words = f"{group}={choice}"
                    yield words + NEEDS.get(words, "")

    yield "default", lambda: default
    for text in (*choices(VAE_GROUPS), *PIPELINE_OPTIONS):
        yield text, lambda text=text: compose(*SMALL, *text.split())
    for text in (*choices(GAN_GROUPS), *GAN_OPTIONS):
        yield text, lambda text=text: stage_run("gan", SMALL, *text.split())
    yield "dataset=image_folder", lambda: compose(*small_image_folder())
    for stage in ("vae", "gan"):
        for text in ("stage=evaluate full=true num_samples=50", "stage=export"):
            yield (
                f"{text} of a {stage}",
                lambda text=text, stage=stage: tool_run(text.replace(" of", "").split(), stage),
            )


def small_image_folder():
    """Return the overrides of a run on image files with random crops and flips."""
    folder = new_folder()
    levels = torch.randint(256, (600, 24, 24, 3), dtype=torch.uint8).numpy()
    for i, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{i}.png")
    dataset = f"dataset=image_folder dataset.root={folder} dataset.image_size=16"
    own = f"{dataset} dataset.cache={folder}/cache dataset.crop=random dataset.flip=true"
    return [*own.split(), *(word for word in SMALL if not word.startswith("dataset"))]


@functools.cache
def trained_pipeline():
    """Return the folder of a finished small run of both stages."""
    folder = new_folder()
    execute(compose(*SMALL), folder)
    return folder


def tool_run(words, stage):
    """Return the config of a stage that reads a checkpoint of a trained model."""
    return compose(*words, f"ckpt={trained_pipeline() / stage}")


SYNC_CASES = {  # stage and words
    "vae": ("vae", []),
    "vae, prior=flow": ("vae", ["prior=flow"]),
    "vae, posterior=flow": ("vae", ["posterior=flow"]),
    "vae, posterior=full_normal": ("vae", ["posterior=full_normal"]),
    "vae, prior=vamp_prior": ("vae", ["prior=vamp_prior"]),
    "vae, objective=dreg": ("vae", ["objective=dreg", "objective.num_samples=3"]),
    "vae, scale=optimal": ("vae", ["likelihood=gaussian", "likelihood.scale=optimal"]),
    "gan": ("gan", []),
    "gan, prior=flow": ("gan", ["prior=flow"]),
    "gan, diff_augment": ("gan", ["augmentation=diff_augment"]),
    "gan, adaptive": ("gan", ["augmentation=diff_augment", "augmentation.adaptive_target=0.6"]),
    "gan, 2 parts, clipped": ("gan", ["gan.gradient_accumulation=2", "gan.gradient_clip=1.0"]),
    "gan, skip_bad_steps": ("gan", ["gan.trainer.skip_bad_steps=10"]),
    "gan, reconstruction": ("gan", ["gan.warm_start.reconstruction_weight=1.0"]),
    "gan, feature loss": ("gan", ["gan.warm_start.feature_weight=1.0"]),
    "gan, bf16-mixed": ("gan", ["trainer.precision=bf16-mixed"]),
    "vae, no CUDA graphs": ("vae", ["trainer.cuda_graphs=false"]),
    "gan, no CUDA graphs": ("gan", ["trainer.cuda_graphs=false"]),
}


def syncs(report):
    """Count host-device synchronizations per training step in both stages."""
    first, last = (70, 120) if HAS_GPU else (2, 4)  # one of these 50 steps is logged
    for name, (stage, words) in SYNC_CASES.items():
        if not report.may_begin(name):
            continue
        try:
            shared = [word for word in words if word == "prior=flow"]  # of the VAE, too
            run = stage_run(stage, [*setup_words("default"), *shared], *words)
            places = count_syncs(run, first, last)
        except Exception as error:
            report.say(f"syncs: {name}: CRASH {describe_error(error)}")
            continue
        num_steps = last - first
        report.say(f"syncs: {name}: {places.total() / num_steps:.2f} per step")
        for where, num in places.most_common():
            print(f"         {num / num_steps:5.2f} {where}")


def count_syncs(run, first, last):
    """Return the number of synchronizing calls of the steps in a range, by place."""
    places = collections.Counter()

    def show(message, *args, **kwargs):
        if "synchronizing" in str(message):
            places[place(traceback.extract_stack())] += 1

    def before_step(i, module):
        if HAS_GPU and i in (first, last):
            torch.cuda.set_sync_debug_mode("warn" if i == first else "default")

    with warnings.catch_warnings(), mock.patch.object(warnings, "showwarning", show):
        warnings.simplefilter("always")
        try:
            train_steps(run, last, before_step)
        finally:
            if HAS_GPU:
                torch.cuda.set_sync_debug_mode("default")
    return places


BF16 = ("trainer.precision=bf16-mixed",)
HIGH = ("trainer.matmul_precision=high",)
BENCHMARK = ("trainer.benchmark=true",)
COMPILE = ("trainer.compile=true",)
NO_GRAPHS = ("trainer.cuda_graphs=false",)
VARIANTS = {  # settings of timed runs
    "float32": (),
    "float32, no graphs": NO_GRAPHS,
    "high": HIGH,
    "high, compiled": (*HIGH, *COMPILE),
    "high, compiled, no graphs": (*HIGH, *COMPILE, *NO_GRAPHS),
    "high, benchmark": (*HIGH, *BENCHMARK),
    "bf16": BF16,
    "bf16, benchmark": (*BF16, *BENCHMARK),
    "bf16, benchmark, no graphs": (*BF16, *BENCHMARK, *NO_GRAPHS),
    "bf16, benchmark, compiled": (*BF16, *BENCHMARK, *COMPILE),
}
SPEED_PLAN = (  # the most important first; compilation takes long
    ("float32, no graphs", ("default", "color64", "r3gan_64")),
    ("float32", ("default", "color64", "r3gan_64")),
    ("bf16, benchmark", ("r3gan_64", "color64")),
    ("bf16, benchmark, no graphs", ("r3gan_64", "color64")),
    ("bf16", ("r3gan_64", "color64")),
    ("bf16, benchmark, compiled", ("r3gan_64", "color64")),
    ("high, compiled", ("default", "color64")),
    ("high, compiled, no graphs", ("default",)),
    ("high, benchmark", ("r3gan_64",)),
    ("high", ("r3gan_64",)),
)


class Timing(NamedTuple):
    """Number of warm-up steps and of timed steps."""

    num_warmup: int
    block: int  # a multiple of the penalty's interval, so that all blocks do the same
    num_blocks: int


def timing_of(setup, stage):
    if not HAS_GPU:
        return Timing(2, 1, 2)
    is_large = (setup, stage) == ("r3gan_64", "gan")
    return Timing(12, 4, 3) if is_large else Timing(80, 16, 6)  # CUDA graphs are captured first


def time_steps(run, timing):
    """Return the seconds and the FLOPs of a training step, and the GPU's peak memory in GiB."""
    stamps, flops = [], []

    def before_step(i, module):
        if i >= timing.num_warmup and (i - timing.num_warmup) % timing.block == 0:
            synchronize()
            stamps.append(time.perf_counter())
            flops.append(training_flops(module, i))

    gc.collect()  # of earlier runs
    if HAS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    num_steps = timing.num_warmup + timing.block * timing.num_blocks
    if run.trainer.compile:
        torch.compiler.reset()
    train_steps(run, num_steps, before_step)
    seconds = statistics.median(b - a for a, b in pairwise(stamps)) / timing.block
    peak = torch.cuda.max_memory_allocated() / 2**30 if HAS_GPU else 0.0
    return seconds, (flops[-1] - flops[0]) / timing.num_blocks / timing.block, peak


def training_flops(module, num_steps):
    """Return the floating-point operations of `num_steps` training steps."""
    if isinstance(module, GANModule):
        return module.progress.flops
    return 3 * module.flops.counts["forward"] * num_steps  # backward costs twice forward


def speed(report):
    """Time the steps of all setups."""
    table = {}
    plan = [(name, setup) for name, setups in SPEED_PLAN for setup in setups]
    for name, setup in plan:
        for stage in ("vae", "gan"):
            title = f"{setup} {stage}, {name}"
            if not report.may_begin(title):
                continue
            try:
                run = stage_run(stage, setup_words(setup), *VARIANTS[name])
                seconds, flops, peak = time_steps(run, timing_of(setup, stage))
            except Exception as error:
                report.say(f"speed: {title}: CRASH {describe_error(error)}")
                continue
            row = {
                "ms": 1e3 * seconds,
                "images_per_s": run.loader.batch_size / seconds,
                "tflop_per_s": flops / seconds / 1e12,
                "peak_gib": peak,
            }
            table[title] = row
            report.say(
                "speed: {:40} {ms:8.2f} ms/step {images_per_s:8.0f} images/s "
                "{tflop_per_s:7.2f} TFLOP/s {peak_gib:6.2f} GiB".format(title, **row)
            )
    (report.folder / "speed.json").write_text(json.dumps(table, indent=1))


def profile(report):
    """Count kernels, and compare their time with that of the steps."""
    for setup in ("default", "color64"):
        for stage in ("vae", "gan"):
            title = f"{setup} {stage}"
            if not report.may_begin(title):
                continue
            run = stage_run(stage, setup_words(setup))
            profiler, python_table, seconds = profile_steps(run)
            kernels = []
            for event in profiler.events():
                is_annotation = getattr(event, "is_user_annotation", False)
                if event.device_type == DeviceType.CUDA and not is_annotation:
                    kernels.append(event.time_range.elapsed_us() / 1e6)
            share = sum(kernels) / NUM_PROFILED / seconds
            report.say(
                f"profile: {title}: {len(kernels) / NUM_PROFILED:.0f} kernels and copies per "
                f"step, {1e3 * seconds:.2f} ms per step, GPU busy for {share:.2f} of it"
            )
            order = "self_cuda_time_total" if HAS_GPU else "self_cpu_time_total"
            table = profiler.key_averages().table(sort_by=order, row_limit=50)
            with (report.folder / "profile.txt").open("a") as file:
                file.write(f"{title}\n{table}\n{python_table}\n")


NUM_PROFILED = 16 if HAS_GPU else 1  # steps: a multiple of the penalty's interval


def profile_steps(run):
    """Return a profiler of some steps, Python's own as text, and the seconds of a plain step."""
    first = NUM_PROFILED + 1
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * HAS_GPU
    profiler, python = torch.profiler.profile(activities=activities), cProfile.Profile()
    stamps = []

    def before_step(i, module):
        window, offset = divmod(i - first, NUM_PROFILED)
        if offset or window < 0:
            return
        synchronize()
        stamps.append(time.perf_counter())
        if window == 1:
            profiler.start()
        elif window == 2:
            profiler.stop()
            python.enable()
        elif window == 3:
            python.disable()

    train_steps(run, first + 3 * NUM_PROFILED, before_step)
    text = io.StringIO()
    pstats.Stats(python, stream=text).sort_stats("cumulative").print_stats(80)
    return profiler, text.getvalue(), (stamps[1] - stamps[0]) / NUM_PROFILED


def numbers(report):
    """Compare the GPU with the CPU, and precisions with each other."""
    data = Mnist.Config().build()
    num = 2000 if HAS_GPU else 200
    levels, others = data.split("val").images[:num], data.split("train").images[:num]
    images = to_float(levels)
    gaps = (images - to_float(levels.to(DEVICE)).cpu()).abs()
    is_same = torch.equal(image_noise(images, 3), image_noise(images.to(DEVICE), 3).cpu())
    report.say(
        f"numbers: {float((gaps > 0).float().mean()):.3f} of the pixels differ, by at most "
        f"{float(gaps.max()):.1e}; image_noise is the same: {is_same}"
    )

    network = load_digits_cnn("mnist")
    scores = {}
    for device in (torch.device("cpu"), DEVICE):
        network.to(device)
        batches = [network.features(to_float(x.to(device))) for x in (levels, others)]
        scores[f"on {device}"] = compute_scores(*map(FeatureBatch, batches))
    for where, values in scores.items():
        text = ", ".join(f"{name} {value:.6f}" for name, value in values.items())
        report.say(f"numbers: scores of real images {where}: {text}")
    compare_bounds(report, images[:500])
    compare_precisions(report)


@torch.no_grad()
def compare_bounds(report, images):
    """Report the differences of the ELBO terms from float32 on the CPU, in nats per image."""
    words = setup_words("default")
    if not HAS_GPU:
        images = images[:, :, 6:22, 6:22]
    vae = load_vae_checkpoint(trained_vae(*words), "vae_ckpt").build_vae()
    target = vae.likelihood.target(images)
    noise = torch.randn(len(images), vae.prior.latent_dim)

    def terms(device):
        vae.to(device)
        posterior = vae.encode(target.to(device))
        z = posterior.mean + posterior.stddev * noise.to(device)
        log_likelihood = vae.decode(z).log_prob(target.to(device))
        kl = torch.distributions.kl_divergence(posterior, vae.latent_prior())
        return torch.stack([log_likelihood, kl]).cpu().double()

    expected = terms(torch.device("cpu"))
    mean = expected.mean(1).tolist()
    report.say(f"numbers: log p(x|z) {mean[0]:.3f} and KL {mean[1]:.3f} nats on the CPU")
    cases = {
        "float32": ("highest", False, False),
        "float32, TF32 in convolutions (torch's default)": ("highest", True, False),
        "TF32": ("high", True, False),
        "bf16 autocast": ("highest", True, True),
    }
    for name, (matmul, tf32, is_bf16) in cases.items():
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=is_bf16):
            gap = terms(DEVICE) - expected
        means, largest = gap.mean(1).tolist(), gap.abs().amax(1).tolist()
        report.say(
            f"numbers: {name}: log p(x|z) {means[0]:+.6f} (largest {largest[0]:.6f}), "
            f"KL {means[1]:+.6f} (largest {largest[1]:.6f})"
        )
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def compare_precisions(report):
    """Report the test scores after one epoch of each stage, by precision."""
    words = setup_words("default")
    for precision in ("32-true", "bf16-mixed"):
        for stage, tags in (("vae", ("elbo",)), ("gan", ("frechet_distance", "recall"))):
            if not report.may_begin(f"{stage}, {precision}"):
                continue
            more = [f"trainer.precision={precision}", f"{stage}.trainer.max_epochs=1"]
            metrics = execute(stage_run(stage, words, *more)).metrics
            text = ", ".join(f"test/{tag} {metrics[f'test/{tag}']:.4f}" for tag in tags)
            report.say(f"numbers: {stage}, one epoch in {precision}: {text}")


def repeat(report):
    """Train twice, and once with a stop, and compare the weights."""
    words = [word for word in SMALL if "height" not in word and "width" not in word]
    cases = {
        "vae": ("vae", []),
        "gan": ("gan", []),
        "gan, diff_augment": ("gan", ["augmentation=diff_augment"]),
    }
    for is_deterministic in (False, True):
        for name, (stage, more) in cases.items():
            title = f"{name}{', deterministic' if is_deterministic else ''}"
            if not report.may_begin(title):
                continue
            more = [*more, f"trainer.deterministic={is_deterministic}"]
            try:
                run = stage_run(stage, words, f"{stage}.checkpoint.every_n_images=128", *more)
                first = final_weights(run, stage)
                again = compare_weights(first, final_weights(run, stage))
                resumed = compare_weights(first, final_weights(run, stage, stop_after=3))
                report.say(f"repeat: {title}: again {again}; stopped and resumed {resumed}")
            except Exception as error:
                report.say(f"repeat: {title}: CRASH {describe_error(error)}")


GRAPH_CASES = (  # stage and words
    ("vae", "likelihood=gaussian likelihood.scale=optimal"),
    ("vae", "likelihood=discretized_logistic_mixture dataset.channels=3"),
    ("vae", "objective=dreg objective.num_samples=3"),
    ("vae", "prior=vamp_prior prior.num_pseudo_inputs=20 posterior=full_normal"),
    ("vae", "prior=flow posterior=flow"),
    ("vae", "prior=flow posterior=flow trainer.precision=bf16-mixed"),
    ("gan", "gradient_penalty.interval=2"),
    ("gan", "gradient_penalty=r1_r2 gradient_penalty.interval=1 adversarial_loss=relativistic"),
    ("gan", "gradient_penalty=wgan_gp adversarial_loss=wasserstein gan.discriminator_steps=2"),
    ("gan", "augmentation=diff_augment augmentation.adaptive_target=0.6"),
    ("gan", "gan.emphasis.saturation=3 gan.emphasis.sharpness=4"),
    ("gan", "gan.warm_start.reconstruction_weight=1 gan.warm_start.aggregate_posterior=true"),
    ("gan", "gan.warm_start.feature_weight=1 gan.warm_start.reconstruction_weight=0.1"),
    ("gan", "gan.gradient_accumulation=2 gan.gradient_clip=1.0 discriminator.spectral_norm=true"),
    ("gan", "gan.warm_start.freeze_layers=2 gan.warm_start.freeze_images=512"),
    ("gan", "gan.trainer.skip_bad_steps=2 trainer.precision=bf16-mixed"),
)


def graphs(report):
    """Compare the weights after deterministic training with CUDA graphs and without."""
    words = [*SMALL, "dataset.num_train=1024", "trainer.deterministic=true"]
    for stage, text in GRAPH_CASES:
        title = f"{stage}, {text}"
        if not report.may_begin(title):
            continue
        try:
            run = stage_run(stage, words, *text.split(), f"{stage}.trainer.max_epochs=3")
            weights = final_weights(run, stage)
            trainer = replace(run.trainer, cuda_graphs=False)
            expected = final_weights(replace(run, trainer=trainer), stage)
            outcome = compare_weights(expected, weights)
        except Exception as error:
            outcome = f"CRASH {describe_error(error)}"
        report.say(f"graphs: {title}: {outcome}")


def final_weights(run, stage, stop_after=None):
    """Return the final weights of a run, optionally stopped and resumed."""
    folder = new_folder()
    if stop_after is not None:
        train_steps(run, stop_after, lambda i, module: None, folder)
        run = replace(run, resume=True)
    execute(run, folder)
    path = folder / stage / "checkpoints" / "last.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def compare_weights(expected, weights):
    gaps = [
        float((value.float() - weights[name].float()).abs().max())
        for name, value in expected.items()
    ]
    return "equal bit for bit" if max(gaps) == 0 else f"off by up to {max(gaps):.2g}"


def metrics(report):
    """Time the scores, and two ways to compute the trace term of the Frechet distance."""
    sizes = ((10_000, 64), (10_000, 2048), (50_000, 2048)) if HAS_GPU else ((500, 64),)
    for num_images, num_features in sizes:
        title = f"{num_images} images, {num_features} features"
        if not report.may_begin(title):
            continue
        real = FeatureBatch(torch.randn(num_images, num_features, device=DEVICE))
        fake = FeatureBatch(1.1 * torch.randn(num_images, num_features, device=DEVICE) + 0.1)
        seconds = []
        for score in (frechet_distance, kernel_distance, manifold_scores):
            synchronize()
            start = time.perf_counter()
            score(real, fake)
            synchronize()
            seconds.append(f"{score.__name__} {time.perf_counter() - start:.3f} s")
        report.say(f"metrics: {title}: {', '.join(seconds)}")
    for num_features in (64, 2048) if HAS_GPU else (64,):
        if report.may_begin(f"eigenvalues of {num_features} features"):
            report.say(f"metrics: {time_eigenvalues(num_features)}")


def time_eigenvalues(num_features):
    """Time tr (S R)^(1/2) by the eigenvalues of S R, and of the symmetric L^T R L, S = L L^T."""
    a, b = torch.randn(2, 4 * num_features, num_features, device=DEVICE, dtype=torch.float64)
    s, r = torch.cov(a.T), torch.cov(b.T)

    def general():
        return torch.linalg.eigvals(s @ r).sqrt().real.sum()

    def symmetric():
        factor = torch.linalg.cholesky(s)
        return torch.linalg.eigvalsh(factor.T @ r @ factor).clamp(min=0).sqrt().sum()

    seconds, traces = [], []
    symmetric()
    for compute in (general, symmetric):
        synchronize()
        start = time.perf_counter()
        traces.append(float(compute()))
        seconds.append(time.perf_counter() - start)
    return (
        f"trace of a root of {num_features} features: {seconds[0]:.3f} s by eigvals, "
        f"{seconds[1]:.3f} s by eigvalsh; they differ by {abs(traces[0] - traces[1]):.1e}"
    )


SECTIONS = {
    section.__name__: section
    for section in (fork, crash, syncs, repeat, graphs, speed, profile, numbers, metrics)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--only", default="", help="regular expression for the names of cases")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"))
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"unknown sections: {', '.join(unknown)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.seconds, arguments.only, arguments.output)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    os.environ["XDG_CACHE_HOME"] = WORK.name
    register()
    for name in arguments.sections or SECTIONS:
        if name != "fork":
            card = torch.cuda.get_device_name() if HAS_GPU else "no GPU: a dry run"
            report.say(f"{name}: torch {torch.__version__}, {card}")
        try:
            SECTIONS[name](report)
        except Exception as error:
            report.say(f"{name}: CRASH {describe_error(error)}")
            traceback.print_exc()
        report.list_late()


if __name__ == "__main__":
    main()
