"""Paths of models as the user types them."""

import pytest
import torch

from tests.untrained import make_run, save_gan, save_vae
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint


@pytest.fixture
def pipeline(tmp_path):
    """Return the folder of a pipeline of untrained models."""
    run = make_run(network="mlp")
    save_vae(tmp_path / "vae" / "checkpoints" / "best.ckpt", run)
    save_gan(tmp_path / "gan" / "checkpoints" / "best.ckpt", run)
    return tmp_path


def test_a_folder_with_both_models_says_which_one_is_used(pipeline, caplog):
    caplog.set_level("INFO")
    path = find_checkpoint(str(pipeline), "ckpt", ["vae", "gan"])
    assert path == pipeline / "vae" / "checkpoints" / "best.ckpt"
    (message,) = caplog.messages
    assert "has a VAE and a GAN: using the VAE; for the other one, ckpt=" in message
    assert message.endswith("/gan")
    caplog.clear()
    find_checkpoint(str(pipeline / "gan"), "ckpt", ["vae", "gan"])
    find_checkpoint(str(pipeline), "vae_ckpt", ["vae"])
    assert caplog.messages == []


def test_load_checkpoint_takes_strings_and_explains_folders(pipeline):
    path = find_checkpoint(str(pipeline), "ckpt", ["vae"])
    loaded = load_checkpoint(str(path))
    assert loaded.stage == "vae" and loaded.class_names == ["disk", "square", "diamond"]
    with pytest.raises(ValueError, match="is a folder; give a checkpoint in it, or use"):
        load_checkpoint(pipeline)


def test_class_names_must_be_text(pipeline):
    path = find_checkpoint(str(pipeline), "ckpt", ["vae"])
    content = torch.load(path, weights_only=True)
    for names in (5, [1, 2]):
        content["vaegan"]["class_names"] = names
        torch.save(content, path)
        with pytest.raises(ValueError, match="is not a vaegan checkpoint"):
            load_checkpoint(path)
