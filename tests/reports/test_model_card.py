"""Model card of an export."""

import json

import pytest

from tests.untrained import make_run, save_gan, save_vae
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.reports.model_card import UNKNOWN_LICENSE, license_of, model_card


def test_a_card_has_data_metrics_command_and_license(tmp_path):
    run_folder = tmp_path / "run"
    path = save_gan(run_folder / "gan" / "checkpoints" / "best.ckpt", make_run())
    result = {"metrics": {"test/recall": 0.51}, "real_vs_real": {"test/recall": 0.93}}
    (run_folder / "gan" / "result.json").write_text(json.dumps(result))
    (run_folder / ".hydra").mkdir()
    (run_folder / ".hydra" / "overrides.yaml").write_text("- stage=gan\n- vae_ckpt=my run\n")
    card = model_card(load_checkpoint(path), {"samples.png": "samples"})
    assert card.startswith(
        "---\nlibrary_name: vaegan\npipeline_tag: unconditional-image-generation"
    )
    assert "# GAN started from a variational autoencoder of shapes" in card
    assert "| test/recall | 0.51 | 0.93 |" in card
    assert "python train.py stage=gan 'vae_ckpt=my run'" in card
    assert "![Samples of the model](samples.png)" in card and "| decoder | conv" in card


def test_a_card_of_a_single_file_says_what_is_unknown(tmp_path):
    card = model_card(load_checkpoint(save_vae(tmp_path / "a" / "b" / "vae.ckpt", make_run())), {})
    assert "The metrics are unknown" in card and "Not recorded" in card and "log_prob" in card
    assert "samples.png" not in card


@pytest.mark.parametrize(
    "aggregate, text",
    [
        ({}, "from the prior"),
        ({"has_aggregate": True}, "from a normal fitted to the latents of training images"),
        (
            {"has_aggregate": True, "num_centers": 1200},
            "near the latents of 1,200 training images (bandwidth 0.3); the",
        ),
    ],
)
def test_a_card_says_where_latents_come_from(aggregate, text, tmp_path):
    checkpoint = load_checkpoint(save_gan(tmp_path / "gan.ckpt", make_run(), **aggregate))
    checkpoint.run["warm_start"] = {"bandwidth": 0.3}
    card = model_card(checkpoint, {})
    assert f"| latents | {text}" in card


def test_licenses():
    assert license_of("mnist") == "CC BY-SA 3.0"
    assert license_of("image_folder") == license_of("no_such_data") == UNKNOWN_LICENSE
