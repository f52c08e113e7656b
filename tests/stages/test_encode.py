"""Stage encode: latents, reconstructions and scores of image files."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import vaegan
from tests.conftest import compose
from tests.untrained import make_run, save_gan, save_vae
from vaegan.images import to_uint8
from vaegan.stages.encode import print_rows
from vaegan.stages.stage_table import run_stage


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the checkpoints of an untrained VAE and of a GAN from it, and a folder of images."""
    folder = tmp_path_factory.mktemp("models")
    run = make_run()
    paths = {"vae": save_vae(folder / "vae.ckpt", run), "gan": save_gan(folder / "gan.ckpt", run)}
    paths["images"] = folder / "images"
    (paths["images"] / "more").mkdir(parents=True)
    shapes = run.dataset.build().split("test").images
    for i in range(9):
        Image.fromarray(shapes[i, 0].numpy()).save(paths["images"] / f"{i}.png")
    Image.fromarray(shapes[9, 0].numpy()).convert("RGB").save(paths["images"] / "more" / "9.png")
    (paths["images"] / "broken.png").write_bytes(b"no image")
    (paths["images"] / "notes.txt").write_text("no image")
    return paths


def encode(paths, stage, folder, *words):
    """Run stage=encode on the CPU; return its folder and the rows of images.csv."""
    given = ["stage=encode", f"ckpt={paths[stage]}", "device=cpu", "num_samples=3"]
    if not any(word.startswith("images=") for word in words):
        given.append(f"images={paths['images']}")
    run_stage(compose(*given, *words), folder)
    with (folder / "encode" / "images.csv").open(newline="") as file:
        return folder / "encode", list(csv.DictReader(file))


def test_scores_and_latents_equal_those_of_the_python_api(paths, tmp_path, caplog):
    folder, rows = encode(paths, "vae", tmp_path, "num_ranked=20")
    assert "skipping 'broken.png': not an image of a known format" in caplog.text
    files = [*(f"{i}.png" for i in range(9)), "more/9.png"]
    assert [row["file"] for row in rows] == files
    model = vaegan.load(paths["vae"])
    images = make_run().dataset.build().split("test").images[:10]
    scores = model.score(images, num_samples=3)
    expected = {
        "nll": -scores.log_evidence,
        "elbo": scores.log_likelihood - scores.kl,
        "kl": scores.kl,
    }
    for name, values in expected.items():
        found = torch.tensor([float(row[name]) for row in rows])
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-4)
    assert {row["bits_per_dim"] for row in rows} == {""}  # undefined for binarized images
    with np.load(folder / "latents.npz") as arrays:
        assert arrays["files"].tolist() == files
        posterior = model.encode(images)
        np.testing.assert_allclose(arrays["mean"], posterior.mean, atol=1e-5)
        np.testing.assert_allclose(arrays["stddev"], posterior.stddev, atol=1e-5)
    with Image.open(folder / "reconstructions.png") as grid:
        assert grid.size == (8 * 29 + 1, 4 * 29 + 1)


def test_the_rank_of_an_outlier_is_one(paths, tmp_path):
    odd = tmp_path / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)).save(odd)
    _, (row,) = encode(paths, "vae", tmp_path, f"images={odd}", "num_ranked=20")
    assert row["file"] == "odd.png"
    nll = float(row["nll"])
    test_images = make_run().dataset.build().split("test").images
    test_nll = -vaegan.load(paths["vae"]).log_prob(test_images, num_samples=3)
    assert float(row["rank"]) == pytest.approx(float((test_nll < nll).float().mean()))


def test_ranks_are_empty_without_the_data_of_the_training(paths, tmp_path, monkeypatch, caplog):
    def fail(self, name):
        raise ValueError("the files are gone")

    monkeypatch.setattr("vaegan.data.shapes.Shapes.split", fail)
    _, rows = encode(paths, "vae", tmp_path)
    assert {row["rank"] for row in rows} == {""}
    assert "no ranks, because the data set of the model is not available" in caplog.text


def test_a_gan_is_inverted(paths, tmp_path, capsys):
    model = vaegan.load(paths["gan"])
    images = tmp_path / "images"
    images.mkdir()
    for i, image in enumerate(to_uint8(model.sample(3))):
        Image.fromarray(image[0].numpy()).save(images / f"{i}.png")
    words = (f"images={images}", "inversion_steps=40")
    folder, rows = encode(paths, "gan", tmp_path, *words)
    assert all(float(row["psnr"]) > float(row["psnr_before"]) for row in rows)
    assert "PSNR" in capsys.readouterr().out
    with np.load(folder / "latents.npz") as arrays:
        assert arrays["mean"].shape == (3, 4)


@pytest.mark.parametrize(
    "words, message",
    [
        (["images="], "images must be a folder of image files, or one file"),
        (["images=nowhere"], "images=nowhere does not exist"),
        (["images=EMPTY"], "images=.* contains no image files"),
        (["images=BROKEN"], "no usable image files \\(tried: 1\\); 'broken.png': not an image"),
        (["num_samples=0"], "num_samples must be at least 1"),
        (["num_ranked=-1"], "num_ranked must be at least 0"),
        (["inversion_lr=0"], "inversion_lr must be positive"),
    ],
)
def test_invalid_settings_are_rejected(paths, words, message, tmp_path):
    places = {"EMPTY": tmp_path, "BROKEN": paths["images"] / "broken.png"}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    with pytest.raises(ValueError, match=message):
        encode(paths, "vae", tmp_path / "run", *words)


def test_layers_to_optimize_must_exist(paths, tmp_path):
    with pytest.raises(ValueError, match=r"inversion_layers must be at most \d, the number"):
        encode(paths, "gan", tmp_path, "inversion_layers=10")


def test_an_image_without_a_score_is_listed_first(paths, tmp_path, capsys):
    checkpoint = vaegan.load(paths["vae"]).checkpoint
    rows = [["a.png", "7"], ["b.png", "9"], ["c.png", ""]]
    print_rows(checkpoint, ["file", "nll"], rows, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["c.png", "b.png", "a.png"]
