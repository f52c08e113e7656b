"""Both stages on a folder of pictures, as a user runs them."""

import json
from pathlib import Path

import pytest

from tests.conftest import SMALL_NETS, SMALL_TRAINER, compose
from tests.faults import TWO, do
from tests.image_files import fill
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

ROOT = Path(__file__).parents[2]
SMALL = [*SMALL_NETS, "latent_dim=4", "discriminator.width=8", "gan.discriminator_warmup=16"]
SMALL += [
    f"{stage}.{setting}"
    for stage in ("vae", "gan")
    for setting in (*SMALL_TRAINER, "loader.batch_size=16")
]
SMALL += [f"{stage}.trainer.enable_progress_bar=false" for stage in ("vae", "gan")]
FOLDER = [
    "dataset=image_folder",
    "dataset.image_size=[12,16]",
    "dataset.val_fraction=0.3",
    "dataset.test_fraction=0.3",
]


@pytest.fixture
def root(tmp_path):
    """Class folders of small pictures, two of them broken."""
    for i, name in enumerate(("cat", "dog")):
        fill(tmp_path / "pictures" / name, 40, start=40 * i)
    (tmp_path / "pictures" / "dog" / "broken.jpg").write_bytes(b"words")
    (tmp_path / "pictures" / "empty.png").write_bytes(b"")
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["dataset.crop=random", "dataset.flip=true", "dataset.channels=1"],
        ["dataset.cache=null"],
    ],
    ids=["cached", "views", "on demand"],
)
def test_the_pipeline_trains_on_a_folder(root, tmp_path, settings):
    run = compose(*SMALL, *FOLDER, f"dataset.root={root}", *settings)
    result = run_stage(run, tmp_path / "run")
    assert result.metrics["test/frechet_distance"] > 0
    assert run.likelihood.name == "gaussian"
    for stage in ("vae", "gan"):
        skipped = json.loads((tmp_path / "run" / stage / "skipped_files.json").read_text())
        assert (
            skipped.keys() == {"dog/broken.jpg", "empty.png"}
            and skipped["empty.png"] == "the file is empty"
        )
        assert (tmp_path / "run" / stage / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_the_gan_finds_the_pictures_of_its_vae_and_a_missing_folder_is_said(root, tmp_path, caplog):
    vae = [
        word.removeprefix("vae.")
        for word in SMALL
        if not word.startswith(("gan.", "discriminator"))
    ]
    run_stage(compose("stage=vae", *vae, *FOLDER, f"dataset.root={root}"), tmp_path / "vae")
    gan = [
        word.removeprefix("gan.") for word in SMALL if word.startswith(("gan.", "discriminator"))
    ]
    command = ["stage=gan", *gan, f"vae_ckpt={tmp_path / 'vae'}"]
    root.rename(tmp_path / "moved")
    with pytest.raises(
        ValueError, match=r"dataset\.root=.* is not a folder; set it to the folder of your images"
    ):
        run_stage(compose(*command), tmp_path / "gan")
    moved = [*FOLDER, f"dataset.root={tmp_path / 'moved'}"]
    assert (
        run_stage(compose(*command, *moved), tmp_path / "gan").metrics["val/frechet_distance"] > 0
    )
    assert "differs" not in caplog.text
    run_stage(
        compose(*command, *moved, "dataset.split_seed=1", "dataset.cache=null"), tmp_path / "other"
    )
    warning = "differs from the one that the VAE was trained on (split_seed=1 instead of 0)"
    assert f"{warning}: splits may mix" in caplog.text


@pytest.mark.slow
def test_a_file_that_goes_while_training_does_not_matter(root, tmp_path, monkeypatch):
    """With a cache nothing is read any more; without one another picture takes its place."""
    for name, settings in (
        ("cached", []),
        ("on_demand", ["dataset.cache=null", "dataset.max_broken=0.6"]),
    ):
        command = [
            "stage=vae",
            *SMALL_NETS,
            "latent_dim=4",
            *SMALL_TRAINER,
            "loader.batch_size=16",
            *FOLDER,
            f"dataset.root={root}",
        ]
        run = compose(*command, *settings)
        source = type(run.dataset.build())
        prepare = source.prepare

        def lose(self, prepare=prepare):
            skipped = prepare(self)
            for path in self.paths["train"][::8]:
                (root / path).unlink()
            return skipped

        monkeypatch.setattr(source, "prepare", lose)
        assert "test/elbo" in run_stage(run, tmp_path / name).metrics
        monkeypatch.undo()


@pytest.mark.slow
def test_two_ranks_build_one_cache_and_train(root, tmp_path):
    """Both start at once: one decodes, the other waits."""
    words = [
        "stage=vae",
        *SMALL_NETS,
        "latent_dim=4",
        *SMALL_TRAINER,
        *FOLDER,
        "loader.batch_size=16",
    ]
    words += [f"dataset.root={root}", f"dataset.cache={tmp_path / 'cache'}", *TWO]
    do(tmp_path / "log", lambda: execute(compose(*words), tmp_path / "run"))
    (pixels,) = (tmp_path / "cache").glob("*/pixels-*")
    assert pixels.stat().st_size == 80 * 3 * 12 * 16
    assert (tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt").exists()
