"""Stage sample: files of images that depend on their seeds only."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import vaegan
from tests.conftest import compose
from tests.untrained import make_run, save_gan, save_vae
from vaegan.images import to_uint8
from vaegan.stages.stage_table import run_stage


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the checkpoints of an untrained color VAE and of a GAN from it."""
    folder = tmp_path_factory.mktemp("models")
    run = make_run(shape=(3, 12, 16))
    return {"vae": save_vae(folder / "vae.ckpt", run), "gan": save_gan(folder / "gan.ckpt", run)}


def sample(path, folder, *words):
    """Run stage=sample on the CPU; return the folder of its files."""
    run_stage(compose("stage=sample", f"ckpt={path}", "device=cpu", *words), folder)
    return folder / "sample"


def read(path):
    """Return an image file as uint8, (C, H, W)."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_files_equal_the_images_of_the_python_api(paths, stage, tmp_path):
    folder = sample(paths[stage], tmp_path, "seeds=[3,17-19]")
    assert sorted(path.name for path in folder.glob("*.png")) == [
        f"{seed:06d}.png" for seed in (3, 17, 18, 19)
    ]
    expected = to_uint8(vaegan.load(paths[stage]).sample(20))
    for seed in (3, 17, 18, 19):
        assert torch.equal(read(folder / f"{seed:06d}.png"), expected[seed])


def test_samples_json_describes_how_to_repeat_them(paths, tmp_path):
    folder = sample(paths["vae"], tmp_path, "num_images=2", "seed=5", "temperature=0.5")
    record = json.loads((folder / "samples.json").read_text())
    assert record["seeds"] == [5, 6] and record["stage"] == "vae"
    assert record["sha256"] == hashlib.sha256(paths["vae"].read_bytes()).hexdigest()
    assert record["settings"]["temperature"] == 0.5
    expected = vaegan.load(record["checkpoint"]).sample(2, seed=5, temperature=0.5)
    assert torch.equal(read(folder / "000005.png"), to_uint8(expected)[0])


def test_samples_json_names_the_file_behind_a_link(paths, tmp_path):
    (tmp_path / "latest").symlink_to(paths["vae"].parent, target_is_directory=True)
    folder = sample(tmp_path / "latest" / "vae.ckpt", tmp_path, "num_images=1")
    record = json.loads((folder / "samples.json").read_text())
    assert record["checkpoint"] == str(paths["vae"])


def test_formats(paths, tmp_path, capsys):
    model = vaegan.load(paths["vae"])
    with np.load(sample(paths["vae"], tmp_path / "npz", "format=npz") / "samples.npz") as arrays:
        assert arrays["images"].shape == (64, 12, 16, 3) and arrays["images"].dtype == np.uint8
        assert np.array_equal(arrays["latents"], model.sample_latents(range(64)).numpy())
        assert arrays["seeds"].tolist() == list(range(64))
    grid = sample(paths["vae"], tmp_path / "grid", "format=grid", "num_images=9") / "samples.png"
    assert read(grid).shape == (3, 3 * 13 + 1, 3 * 17 + 1)
    assert "grid/sample: samples.json, samples.png" in capsys.readouterr().out


def test_a_draw_differs_from_the_mean_and_is_repeatable(paths, tmp_path):
    folders = [
        sample(paths["vae"], tmp_path / name, "mean_or_draw=draw", f"seeds={seeds}")
        for name, seeds in (("a", "0-4"), ("b", "4"))
    ]
    draw, repeated = (read(folder / "000004.png") for folder in folders)
    assert torch.equal(draw, repeated)
    assert not torch.equal(draw, to_uint8(vaegan.load(paths["vae"]).sample(5))[4])


def test_an_interpolation_starts_and_ends_at_its_seeds(paths, tmp_path):
    words = ("interpolation=[2,9,4]", "num_steps=5")
    folder = sample(paths["gan"], tmp_path, *words)
    names = {path.name for path in folder.iterdir()}
    animations = {"interpolation.gif", "interpolation.webp"}
    assert names == {"interpolation.png", "samples.json", *animations}  # no samples
    strip = read(folder / "interpolation.png")
    assert strip.shape == (3, 2 * 13 + 1, 5 * 17 + 1)
    expected = to_uint8(vaegan.load(paths["gan"]).sample(10))
    for (row, column), seed in {(0, 0): 2, (0, 4): 9, (1, 0): 9, (1, 4): 4}.items():
        image = strip[:, 13 * row + 1 : 13 * row + 13, 17 * column + 1 : 17 * column + 17]
        assert (image.int() - expected[seed].int()).abs().max() <= 1
    for name in animations:
        with Image.open(folder / name) as animation:
            assert animation.n_frames == 9 + 7 and animation.height >= 128


def test_a_traversal_shows_the_latents_that_change_the_image(tmp_path):
    run = make_run()
    path = save_vae(tmp_path / "vae.ckpt", run)
    content = torch.load(path, weights_only=True)
    first_layer = content["state_dict"]["vae.decoder.net.0.weight"]
    first_layer[:, 1] = 0  # the decoder ignores latent 1
    first_layer[:, 2] *= 3
    torch.save(content, path)
    folder = sample(path, tmp_path, "traversal=true")
    assert {file.name for file in folder.iterdir()} == {"traversal.png", "samples.json"}
    traversal = json.loads((folder / "samples.json").read_text())["traversal"]
    assert traversal["latents"][0] == 2 and traversal["latents"][-1] == 1
    assert traversal["activity"][-1] == 0
    with Image.open(folder / "traversal.png") as grid:
        assert grid.size == (9 * 29 + 1, 4 * 29 + 1)


@pytest.mark.parametrize(
    "words, message",
    [
        (["seeds=abc"], "seeds must be a seed, a range such as 0-63"),
        (["seeds=9-3"], "seeds must be a range from a smaller to a larger seed; got '9-3'"),
        (["seeds=0-3", "num_images=4"], "num_images must be null with seeds"),
        (["num_images=0"], "num_images must be at least 1"),
        (["format=jpg"], "format must be png, grid or npz; got 'jpg'"),
        (["temperature=-1"], "temperature must be at least 0"),
        (["mean_or_draw=median"], "mean_or_draw must be mean or draw"),
        (["interpolation=3"], "interpolation must be at least two seeds"),
        (["num_steps=1", "interpolation=[1,2]"], "num_steps must be at least 2"),
        (["device=tpu9"], "device must be auto, cpu, cuda, cuda:1 or mps; got 'tpu9'"),
        (["ckpt="], "ckpt must be the folder or the checkpoint"),
        (["ckpt=nowhere"], "ckpt=nowhere does not exist"),
        (["sweep_metric=val/elbo"], "sweep_metric must be empty in stage=sample"),
    ],
)
def test_invalid_settings_are_rejected(paths, words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sample(paths["vae"], tmp_path, *words)


def test_a_gan_has_no_draws_and_samples_are_not_overwritten(paths, tmp_path):
    with pytest.raises(ValueError, match="mean_or_draw=draw: a GAN has no p"):
        sample(paths["gan"], tmp_path, "mean_or_draw=draw")
    sample(paths["gan"], tmp_path, "num_images=1")
    with pytest.raises(ValueError, match="will not be overwritten"):
        sample(paths["gan"], tmp_path, "num_images=1")


def test_lack_of_memory_is_explained(paths, tmp_path, monkeypatch):
    def sample_seeds(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("vaegan.inference.trained_model.TrainedModel.sample_seeds", sample_seeds)
    with pytest.raises(ValueError, match="out of memory: CUDA .*\nTry a smaller num_images"):
        sample(paths["vae"], tmp_path)
