"""Every `python train.py` command in README and docs is valid, and runs in a shortened form."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.conftest import compose
from tests.test_docs import TEXTS
from vaegan.stages.stage_table import STAGES, stage_of

COMMAND = re.compile(r"(?<![\w`$(])`?python train\.py([^`#\n]*)")
SETUP_OPTIONS = ("--help", "--version", "--cfg", "-sc")
NEVER_RUN = (
    *("plugins=[", "streaming", "=inception"),  # need a file, a data set or weights of the user
    *("devices=", "hydra/", "experiment=tune_"),  # run in test_launch.py and test_sweep.py
)
SHAPES = ["dataset=shapes", "dataset.num_train=128", "dataset.num_val=64", "dataset.num_test=64"]


def find_commands():
    """Return the distinct commands as lists of words, each with the first page that has it."""
    commands = {}
    for page, text in TEXTS.items():
        if page == "docs/settings.md":
            continue
        for command in COMMAND.findall(text):
            commands.setdefault(tuple(shlex.split(command)), page)
    return commands


COMMANDS = find_commands()


def is_sweep(words):
    return "-m" in words or any(word.startswith("experiment=tune_") for word in words)


def one_job(words):
    """Return the words of a sweep's first job, without options and settings of Hydra."""
    kept = []
    for word in words:
        key, _, value = word.partition("=")
        if word == "-m" or key.startswith("hydra") or re.search(r"\w\(", value):
            continue
        kept.append(word if value.startswith("[") else f"{key}={value.split(',')[0]}")
    return kept


@pytest.fixture(scope="module")
def places(tmp_path_factory, vae_result, gan_result):
    """Folders for the placeholders in the docs."""
    images = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(300):
        pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    pipeline = tmp_path_factory.mktemp("pipeline")
    (pipeline / "vae").symlink_to(vae_result[0] / "vae", target_is_directory=True)
    (pipeline / "gan").symlink_to(gan_result[0] / "gan", target_is_directory=True)
    return {
        "VAE_RUN": vae_result[0],
        "GAN_RUN": gan_result[0],
        "PIPELINE_RUN": pipeline,
        "RUN_FOLDER": vae_result[0],
        "SWEEP_FOLDER": gan_result[0],
        "IMAGES": images,
        "DATA": tmp_path_factory.mktemp("data"),
        "FOLDER": tmp_path_factory.mktemp("folder"),
    }


def fill_in(words, places):
    """Return words with folders in the place of the placeholders."""
    pattern = re.compile(rf"\b({'|'.join(places)})\b")
    return [pattern.sub(lambda found: str(places[found[1]]), word) for word in words]


def test_the_docs_have_commands():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_valid(words, places):
    if any(option in words for option in SETUP_OPTIONS) or "plugins=[" in " ".join(words):
        return
    words = fill_in(one_job(words), places)
    assert stage_of(compose(*[word for word in words if not word.startswith("resume=")])) in STAGES


def shorten(words):
    """Return a command with little data and short trainings, else the same."""
    run = compose(*[word for word in words if not word.startswith("resume=")])
    stage = stage_of(run)
    short = [word for word in words if not word.startswith(("hydra.", "resume="))]
    if stage in ("vae", "pipeline") and run.dataset.name != "image_folder":
        short = [word for word in short if not word.startswith("dataset")] + SHAPES
    elif stage in ("vae", "pipeline"):
        short += ["dataset.val_fraction=0.3", "dataset.test_fraction=0.3", "dataset.image_size=16"]
    keys = [word.partition("=")[0] for word in words]
    for training in {"vae": [""], "gan": [""], "pipeline": ["vae.", "gan."]}.get(stage, []):
        short += [f"{training}trainer.max_epochs=1", f"{training}loader.batch_size=32"]
    if stage in ("vae", "pipeline"):
        short += ["objective.beta_warmup_epochs=0", "latent_dim=4"]
    if stage == "evaluate" and "num_samples" not in keys:
        short.append("num_samples=5")
    return short


RUNNABLE = [
    words
    for words, page in COMMANDS.items()
    if words
    and page != "docs/results.md"  # whose commands stand next to their recorded runs
    and not any(part in " ".join(words) for part in (*SETUP_OPTIONS, *NEVER_RUN))
]


ALREADY_RUN = set()


@pytest.mark.slow
@pytest.mark.parametrize("words", RUNNABLE, ids=" ".join)
def test_commands_run(words, places, train, tmp_path):
    resumed = [word for word in fill_in(words, places) if word.startswith("resume=")]
    if resumed and resumed != ["resume=true"]:
        ended, out, err = train(*resumed)
        assert not ended and "already finished" in out + err
        return
    short = shorten(fill_in(one_job(words), places))
    if tuple(short) in ALREADY_RUN:
        return  # another command is the same in its shortened form
    ALREADY_RUN.add(tuple(short))
    ended, out, err = train(*short, "hydra.run.dir=run")
    if stage_of(compose(*short)) == "compare":  # the GAN of these tests is no cold start
        assert "cold" in str(ended)
    else:
        assert not ended, err
        assert (tmp_path / "run").is_dir()
