"""Every `python train.py` command in README and docs is valid, and runs in a shortened form."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.conftest import compose
from tests.test_docs import TEXTS
from vaegan.stages.stage_table import STAGES, run_stage, stage_of

COMMAND = re.compile(r"(?<![\w`$(])`?python train\.py([^`#\n]*)")
SETUP_OPTIONS = ("--help", "--version", "--cfg", "-sc")
NEVER_RUN = (
    *("plugins=[", "streaming", "=inception"),  # need a file, a data set or weights of the user
    ",gpu]",  # needs a GPU
    *("devices=", "hydra/", "experiment=tune_"),  # run in test_launch.py and test_sweep.py
    "trainer.compile=true",  # compiles for minutes; run in test_step_options.py
    *("stage=pack", "ckpt=FOLDER"),  # run in test_streaming.py and test_export.py
    *("format=onnx", "=last", "stage=runs"),  # run in test_graph_exports.py and test_runs.py
    *(" init=", " inversion_"),  # run in test_initial_weights.py and test_encode.py
    "experiment=warm_start_study",  # stands next to its results
    "VAE_RUN dataset.root=",  # a VAE of an image folder, run in test_relocation.py
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
    """Replace the placeholders in the arguments by folders."""
    pattern = re.compile(rf"\b({'|'.join(places)})\b")
    return [pattern.sub(lambda found: str(places[found[1]]), word) for word in words]


def test_the_docs_have_commands():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_valid(words, places):
    needs_files = any(part in " ".join(words) for part in ("plugins=[", "VAE_RUN dataset.root="))
    if any(option in words for option in SETUP_OPTIONS) or needs_files:
        return
    resumed = {"resume=VAE_RUN": ["stage=vae"], "resume=GAN_RUN": ["stage=gan", "vae_ckpt=x"]}
    added = resumed.get(next(iter(words), ""), [])
    words = [word for word in fill_in(one_job(words), places) if not word.startswith("resume=")]
    assert stage_of(compose(*added, *words)) in STAGES


def shorten(words):
    """Return a command with little data and short trainings."""
    run = compose(*[word for word in words if not word.startswith("resume=")])
    stage = stage_of(run)
    dropped = re.compile(r"hydra\.|resume=|seed=|num_images=|(\w+\.)?trainer\.max_(images|epochs)=")
    short = [word for word in words if not dropped.match(word)]
    trainings = {"vae": [""], "gan": [""], "pipeline": ["vae.", "gan."]}.get(stage, [])
    for training in trainings:
        short += [f"{training}trainer.max_epochs=1", f"{training}loader.batch_size=32"]
    if "gan." in trainings:
        short = [word for word in short if "score_every_n_images" not in word]
        short.append("gan.discriminator_warmup=0")
    if stage == "evaluate":
        short = [word for word in short if not word.startswith("num_samples=")]
        short.append("num_samples=5")
    for network in ("encoder", "decoder", "discriminator") if trainings else ():
        if hasattr(getattr(run, network, None), "width"):
            short.append(f"{network}.width=8")
    if stage not in ("vae", "pipeline"):
        return short
    if run.dataset.name == "image_folder":
        short += ["dataset.val_fraction=0.3", "dataset.test_fraction=0.3", "dataset.image_size=16"]
    else:
        short = [word for word in short if not word.startswith("dataset")] + SHAPES
    if run.prior.name == "vamp_prior":
        short.append("prior.num_pseudo_inputs=10")
    return [*short, "objective.beta_warmup_epochs=0", "latent_dim=4"]


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
    words = fill_in(words, places)
    if words[0].startswith("resume="):
        ended, out, err = train(*words)
        if len(words) == 1:
            assert not ended and "already finished" in out + err
        else:  # a longer duration, which these runs were not planned for
            assert "would not give the same result as a single run" in str(ended)
        return
    short = shorten(one_job(words))
    if tuple(short) in ALREADY_RUN:
        return  # another command is the same in its shortened form
    ALREADY_RUN.add(tuple(short))
    run = compose(*short)
    if stage_of(run) == "compare":  # the GAN of these tests is not a cold start
        with pytest.raises(ValueError, match="cold"):
            run_stage(run, tmp_path)
    else:
        run_stage(run, tmp_path)
        assert any(tmp_path.iterdir())
