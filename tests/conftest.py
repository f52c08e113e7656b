"""Fixtures for all tests: seeds, composed configs, and finished runs of both stages."""

import functools
import gc
import os
import runpy
import signal
import sys
from pathlib import Path

if hasattr(signal, "SIGHUP"):  # ignored under nohup, which the tests of signals must not inherit
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.dont_write_bytecode = False  # or each process of these tests compiles torch's modules again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"  # without AMX: the same precision everywhere
if "PYTEST_XDIST_WORKER" in os.environ:  # one test per core: threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hydra
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from vaegan.cli.registration import register, to_run_config
from vaegan.cli.settings import Settings
from vaegan.config import GROUPS
from vaegan.metrics import sliced_wasserstein
from vaegan.stages.stage_table import STAGES, run_stage

NUM_PATCHES = sliced_wasserstein.NUM_PATCHES
sliced_wasserstein.NUM_PATCHES = 256  # fewer, for speed; tests of metrics use all
CONF = Path(__file__).parents[1] / "conf"
TRAIN = Path(__file__).parents[1] / "train.py"
SMALL_NETS = [
    "encoder.width=8",
    "decoder.width=8",
    "encoder.hidden_dim=32",
    "decoder.hidden_dim=32",
    "latent_dim=8",
]
SMALL_DATA = [
    "dataset=shapes",
    "dataset.num_train=256",
    "dataset.num_val=64",
    "dataset.num_test=64",
]
SMALL_TRAINER = ["trainer.max_epochs=2", "loader.batch_size=64", "trainer.log_every_n_steps=1"]
SMALL_VAE = [
    "stage=vae",
    *SMALL_DATA,
    *SMALL_NETS,
    *SMALL_TRAINER,
    "trainer.enable_progress_bar=false",
]
SMALL_GAN = [
    "stage=gan",
    "discriminator.width=8",
    *SMALL_TRAINER,
    "trainer.enable_progress_bar=false",
    "feature_extractor=vae_encoder",  # few features, for small splits
]
SMALL_GAN += ["discriminator_warmup=128"]
SMALL_PIPELINE = [*SMALL_DATA, *SMALL_NETS, "discriminator.width=8", "gan.discriminator_warmup=128"]
SMALL_PIPELINE += [f"{stage}.{setting}" for stage in ("vae", "gan") for setting in SMALL_TRAINER]


@pytest.fixture(autouse=True)
def seed():
    """Seed PyTorch before each test."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """Redirect the user's cache folder to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


# Hydra copies the store for each command line, but only reads the copy.
ConfigStore.__deepcopy__ = lambda store, memo: store
REGISTERED = []


def register_once():
    """Register all stages and components again only if there are others than the last time."""
    components = [component for base in GROUPS.values() for component in base.choices.values()]
    known = [*STAGES.items(), *components]
    if known != REGISTERED:
        register()
        compose_with_hydra.cache_clear()
        REGISTERED[:] = known


@functools.cache
def read_settings():
    """Read the settings from the source files once."""
    return Settings()


@functools.cache
def compose_with_hydra(overrides):
    """Return the config of a command line as Hydra composes it."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def compose(*overrides):
    """Return the typed config of a command line."""
    register_once()
    return to_run_config(compose_with_hydra(overrides))


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
    """Return a function that runs train.py in an empty folder.

    It returns the exit code (or None), standard output and standard error.
    """

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(TRAIN), *map(str, arguments)])
        monkeypatch.setattr("vaegan.cli.hydra_app.register", register_once)
        GlobalHydra.instance().clear()
        exit_code = None
        try:
            runpy.run_path(str(TRAIN), run_name="__main__")
        except SystemExit as error:
            exit_code = error.code
        out, err = capfd.readouterr()
        return exit_code, out, err

    return run


@pytest.fixture(scope="session")
def vae_result(tmp_path_factory):
    """Return the folder and the result of a finished stage=vae run on shapes."""
    folder = tmp_path_factory.mktemp("vae_run")
    return folder, run_stage(compose(*SMALL_VAE), folder)


@pytest.fixture(scope="session")
def gan_result(tmp_path_factory, vae_result):
    """Return the folder and the result of a finished warm-started stage=gan run on shapes."""
    folder = tmp_path_factory.mktemp("gan_run")
    return folder, run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}"), folder)


def pytest_collection_finish():
    """Leave modules and tests, which stay until the end, out of each garbage collection."""
    gc.freeze()


SESSION_PROCESS = os.getpid()


def pytest_runtest_makereport():
    """End a forked process that returns from a test, which would otherwise run the next tests."""
    if os.getpid() != SESSION_PROCESS:
        os._exit(1)
