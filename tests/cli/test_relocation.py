"""`dataset.root` alone relocates the data of a checkpoint; run folders keep absolute paths."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import CONF, SMALL_NETS, compose
from tests.image_files import fill
from vaegan.cli.relocation import expand_dataset
from vaegan.config import to_plain
from vaegan.stages.stage_table import run_stage


def test_keys_of_the_data_set_are_completed_from_the_checkpoint(vae_result):
    ckpt = f"ckpt={vae_result[0]}"
    words = expand_dataset(["stage=evaluate", ckpt, "dataset.num_test=32"], CONF)
    trained = to_plain(compose(*words))["dataset"]
    assert trained["name"] == "shapes"
    assert (trained["num_train"], trained["num_val"], trained["num_test"]) == (256, 64, 32)


def test_a_sweep_over_checkpoints_with_the_same_data_is_completed(vae_result, gan_result):
    words = ["-m", "stage=evaluate", f"ckpt={vae_result[0]},{gan_result[0]}", "dataset.num_val=9"]
    assert "dataset=shapes" in expand_dataset(words, CONF)


@pytest.mark.parametrize(
    "words",
    [
        ["stage=evaluate", "ckpt=x"],
        ["stage=evaluate", "ckpt=x", "dataset=image_folder", "dataset.root=y"],
        ["stage=vae", "dataset=image_folder", "dataset.root=y"],
        ["experiment=folder64", "dataset.root=y", "+ckpt=x"],
    ],
)
def test_commands_that_select_a_data_set_are_not_changed(words):
    assert expand_dataset(words, CONF) == words


def test_the_empty_vae_ckpt_of_a_resumed_run_is_no_checkpoint(gan_result):
    words = ["stage=gan", f"init={gan_result[0]}", "vae_ckpt=''", "dataset.num_test=32"]
    assert "dataset=shapes" in expand_dataset(words, CONF)


def test_a_missing_checkpoint_is_reported(train):
    exit_code, _, _ = train("stage=evaluate", "ckpt=missing", "dataset.root=x")
    assert "ckpt=missing does not exist" in exit_code


@pytest.mark.slow
def test_moved_images_need_only_their_new_folder(train, tmp_path):
    fill(tmp_path / "images", 60)
    settings = ["dataset.image_size=12", "dataset.val_fraction=0.3", "dataset.split_seed=5"]
    words = ["stage=vae", "dataset=image_folder", f"dataset.root={tmp_path / 'images'}", *settings]
    words += [*SMALL_NETS, "trainer.max_epochs=1", "loader.batch_size=16"]
    run_stage(compose(*words), tmp_path / "run")
    (tmp_path / "images").rename(tmp_path / "Übung = 1")
    moved = "dataset.root=Übung = 1"
    exit_code, _, err = train("stage=evaluate", "ckpt=run", moved, "num_samples=2")
    assert exit_code is None, err
    (report,) = tmp_path.glob("run/evaluate/*/evaluate/evaluation.json")
    dataset = json.loads(report.read_text())["evaluation"]["dataset"]
    assert dataset["root"] == str(tmp_path / "Übung = 1")
    trained = compose(*words).dataset
    assert {**dataset, "root": trained.root} == to_plain(trained)
    gan = compose(*expand_dataset(["stage=gan", "vae_ckpt=run", "dataset.root=x"], CONF))
    assert gan.dataset.split_seed == 5 and gan.dataset.root == str(tmp_path / "x")


@pytest.mark.parametrize("stage", ["vae", "pipeline"])
@pytest.mark.parametrize(
    "dataset, root",
    [
        (["dataset=fashion_mnist", "dataset.root=fm"], "fm"),
        (["dataset=kmnist"], "data"),
        (["dataset=emnist", "dataset.root='~/emnist'"], "~/emnist"),
        (["dataset=cifar10"], "data"),
        (["dataset=stacked_mnist", "dataset.root=a/../b"], "b"),
        (["dataset=streaming", "dataset.root=chunks"], "chunks"),
        (["dataset=mnist", "dataset.root=m"], "m"),
        (["dataset=image_folder", "dataset.root=i"], "i"),
    ],
)
def test_a_run_keeps_the_absolute_root(tmp_path, monkeypatch, stage, dataset, root):
    monkeypatch.chdir(tmp_path)
    config = compose(f"stage={stage}", *dataset).dataset
    assert config.root == os.path.abspath(os.path.expanduser(root))


def test_other_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ["dataset=image_folder", "dataset.root=i"]
    assert compose("stage=vae", *folder, "dataset.cache=c").dataset.cache == str(tmp_path / "c")
    assert compose("stage=vae", *folder).dataset.cache == "auto"
    extractor = ["feature_extractor=digits_cnn", "feature_extractor.path=w"]
    assert compose(*extractor).feature_extractor.path == str(tmp_path / "w")
    run = compose("stage=evaluate", "ckpt='~/x'", *extractor)
    assert Path(run.ckpt) == Path.home() / "x"
    assert run.feature_extractor.path == str(tmp_path / "w")


def test_addresses_and_embedded_data_are_kept():
    assert compose("stage=vae").dataset.root is None
    streaming = ["dataset=streaming", "dataset.root=s3://bucket/folder"]
    assert compose("stage=vae", *streaming).dataset.root == "s3://bucket/folder"
