"""Runs of both stages on a folder of images."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_NETS, SMALL_TRAINER, compose
from tests.faults import TWO_PROCESSES, run_in_process
from tests.image_files import fill
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

ROOT = Path(__file__).parents[2]
SMALL = [
    *SMALL_NETS,
    "latent_dim=4",
    "discriminator.width=8",
    "discriminator.hidden_dim=32",
    "gan.discriminator_warmup=16",
]
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
    """Return a folder with two class folders of small images, and two broken files."""
    for i, name in enumerate(("cat", "dog")):
        fill(tmp_path / "images" / name, 40, start=40 * i)
    (tmp_path / "images" / "dog" / "broken.jpg").write_bytes(b"not an image")
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    return tmp_path / "images"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["dataset.crop=random", "dataset.flip=true", "dataset.channels=1"],
        ["dataset.cache=null"],
    ],
    ids=["cached", "augmented", "on demand"],
)
def test_pipeline_trains_on_an_image_folder(root, tmp_path, settings):
    run = compose(*SMALL, *FOLDER, f"dataset.root={root}", *settings)
    result = run_stage(run, tmp_path / "run")
    assert result.metrics["test/frechet_distance"] > 0
    assert run.likelihood.name == "gaussian"
    record = json.loads((tmp_path / "run" / "gan" / "run.json").read_text())
    assert record["config"]["emphasis"] == {"saturation": 3.0, "sharpness": 4.0}
    assert record["config"]["warm_start"]["vae_weights"] == "last"  # of the file that was loaded
    generator, discriminator = record["transfer"]
    assert generator["fresh"] == [] and discriminator["copied"] == []
    for stage in ("vae", "gan"):
        skipped = json.loads((tmp_path / "run" / stage / "skipped_files.json").read_text())
        assert (
            skipped.keys() == {"dog/broken.jpg", "empty.png"}
            and skipped["empty.png"] == "the file is empty"
        )
        assert (tmp_path / "run" / stage / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_gan_uses_the_image_folder_of_its_vae_and_reports_a_missing_one(root, tmp_path, caplog):
    vae = [
        word.removeprefix("vae.")
        for word in SMALL
        if not word.startswith(("gan.", "discriminator"))
    ]
    run_stage(compose("stage=vae", *vae, *FOLDER, f"dataset.root={root}"), tmp_path / "vae")
    last = tmp_path / "vae" / "vae" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"] = {name: value + 1e-3 for name, value in content["state_dict"].items()}
    torch.save(content, last)  # now it differs from best.ckpt
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
    assert "val/combined_distance" in run_stage(compose(*command, *moved), tmp_path / "gan").metrics
    assert "differs" not in caplog.text
    trained = torch.load(tmp_path / "gan/gan/checkpoints/best.ckpt", weights_only=True)
    for name, value in content["state_dict"].items():
        assert torch.equal(trained["state_dict"][name], value), name
    # A resumed GAN loads the weights that its checkpoint names.
    shutil.copytree(tmp_path / "gan", tmp_path / "copy")
    (tmp_path / "copy/gan/result.json").unlink()
    run_stage(compose(*command, *moved, "resume=true"), tmp_path / "copy")
    path = tmp_path / "gan/gan/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["vaegan"]["run"]["warm_start"]["vae_weights"] = "best"
    torch.save(saved, path)
    (tmp_path / "gan/gan/result.json").unlink()  # below, the names are those of other weights
    with pytest.raises(ValueError, match="not the VAE that this GAN was started from"):
        run_stage(compose(*command, *moved, "resume=true"), tmp_path / "gan")
    run_stage(compose(*command, *moved, "dataset.flip=true"), tmp_path / "flipped")
    assert "differs" not in caplog.text
    run_stage(
        compose(*command, *moved, "dataset.split_seed=1", "dataset.cache=null"), tmp_path / "other"
    )
    warning = "differs from the one that the VAE was trained on (split_seed=1 instead of 0)"
    assert f"{warning}: training images of the VAE may be in the val or test split" in caplog.text
    # The data set is that of the weights: here, the folder was moved while the VAE was trained.
    for config in (content["vaegan"]["run"], content["vaegan"]["vae"]):
        config["dataset"]["root"] = str(tmp_path / "moved")
    torch.save(content, last)
    run_stage(compose(*command), tmp_path / "later")


@pytest.mark.slow
def test_files_removed_during_training_are_tolerated(root, tmp_path, monkeypatch):
    """A cache does not read the files again; without a cache, other images replace them."""
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

        def prepare_and_remove_files(self, prepare=prepare):
            skipped = prepare(self)
            for path in self.paths["train"][::8]:
                (root / path).unlink()
            return skipped

        monkeypatch.setattr(source, "prepare", prepare_and_remove_files)
        assert "test/elbo" in run_stage(run, tmp_path / name).metrics
        monkeypatch.undo()


@pytest.mark.slow
def test_two_ranks_share_one_cache(root, tmp_path):
    """Both ranks start at the same time: one decodes the images, the other waits."""
    overrides = [
        "stage=vae",
        *SMALL_NETS,
        "latent_dim=4",
        *SMALL_TRAINER,
        *FOLDER,
        "loader.batch_size=16",
    ]
    overrides += [f"dataset.root={root}", f"dataset.cache={tmp_path / 'cache'}", *TWO_PROCESSES]
    run_in_process(tmp_path / "log", lambda: execute(compose(*overrides), tmp_path / "run"))
    (pixels,) = (tmp_path / "cache").glob("*/pixels-*")
    assert pixels.stat().st_size == 80 * 3 * 12 * 16
    assert (tmp_path / "run" / "vae" / "checkpoints" / "best.ckpt").exists()


def test_messages_about_the_data_of_a_pipeline_name_no_stage(tmp_path):
    fill(tmp_path / "images", 40)
    words = ["dataset=image_folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=8"]
    with pytest.raises(ValueError, match=r"^dataset\.root=.* has too few usable images \(40\)"):
        run_stage(compose(*words, "trainer.accelerator=cpu"), tmp_path / "run")
