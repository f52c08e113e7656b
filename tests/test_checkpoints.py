import os
import pickle
import shutil

import pytest
import torch

from vaegan.checkpoints import find_checkpoint, header, load_checkpoint, load_vae_checkpoint


class Payload:
    """A pickle that makes a file when it is read carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def altered(result, path, **changes):
    """A copy of a run's best checkpoint with some keys changed."""
    content = torch.load(result.checkpoint, weights_only=True)
    torch.save(content | changes, path)
    return path


@pytest.mark.slow
def test_a_checkpoint_holds_plain_data_and_its_own_description(vae_result, gan_result):
    for _, result in (vae_result, gan_result):
        content = torch.load(result.checkpoint, weights_only=True)
        assert content["vaegan"]["stage"] == result.folder.name
        assert content["vaegan"]["image_shape"] == [1, 28, 28]
        assert content["vaegan"]["vae"]["likelihood"] == {"name": "bernoulli", "static_seed": None}


@pytest.mark.slow
def test_the_vae_comes_back_as_it_was(vae_result):
    checkpoint = load_checkpoint(vae_result[1].checkpoint)
    vae = checkpoint.build_vae()
    assert not vae.training
    for name, value in vae.state_dict().items():
        assert torch.equal(value, checkpoint.state[f"vae.{name}"])


@pytest.mark.slow
def test_a_gan_file_stands_alone(vae_result, gan_result, tmp_path):
    path = shutil.copy(gan_result[1].checkpoint, tmp_path / "gan.ckpt")
    checkpoint = load_checkpoint(path)
    original = load_checkpoint(vae_result[1].checkpoint).build_vae()
    for name, value in checkpoint.build_vae().state_dict().items():
        assert torch.equal(value, original.state_dict()[name])
    images = checkpoint.build_generator()(checkpoint.build_latents()().sample((3,)))
    assert images.shape == (3, 1, 28, 28)
    assert checkpoint.vae_flops == load_checkpoint(vae_result[1].checkpoint).vae_flops > 0


@pytest.mark.slow
def test_a_folder_with_both_stages_means_the_first_one_that_is_asked_for(vae_result, gan_result, tmp_path):
    for _, result in (vae_result, gan_result):
        shutil.copytree(result.folder, tmp_path / result.folder.name)
    for stages in (["vae", "gan"], ["gan", "vae"]):
        expected = tmp_path / stages[0] / "checkpoints" / "best.ckpt"
        assert find_checkpoint(str(tmp_path), "ckpt", stages) == expected


@pytest.mark.slow
def test_a_vae_has_no_generator(vae_result):
    with pytest.raises(ValueError, match="only a stage=gan one has a generator"):
        load_checkpoint(vae_result[1].checkpoint).build_generator()


@pytest.mark.slow
def test_folders_mean_their_best_checkpoint(vae_result):
    folder, result = vae_result
    for path in (folder, folder / "vae", folder / "vae" / "checkpoints", result.checkpoint):
        assert find_checkpoint(str(path), "ckpt", ["vae"]) == result.checkpoint
    last = folder / "vae" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(str(last), "ckpt", ["vae"]) == last


@pytest.mark.slow
def test_a_gans_checkpoint_is_refused_as_a_start(gan_result):
    with pytest.raises(ValueError, match=r"is a stage=gan checkpoint; give the stage=vae one"):
        load_vae_checkpoint(str(gan_result[1].checkpoint), "vae_ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.99])
def test_a_cut_file_is_refused(vae_result, tmp_path, keep):
    content = vae_result[1].checkpoint.read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="cut.ckpt is (cut short or damaged|refused)"):
        load_checkpoint(path)


@pytest.mark.slow
def test_missing_weights_are_refused(vae_result, tmp_path):
    state = load_checkpoint(vae_result[1].checkpoint).state
    state = {key: value for key, value in state.items() if "decoder" not in key}
    path = altered(vae_result[1], tmp_path / "less.ckpt", state_dict=state)
    with pytest.raises(ValueError, match="less.ckpt do not fit the model that it describes"):
        load_checkpoint(path).build_vae()


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("forced", [False, True])
def test_a_malicious_pickle_executes_nothing(tmp_path, monkeypatch, new_format, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, mark = tmp_path / "bad.ckpt", tmp_path / "executed"
    content = {"vaegan": {"format": 1}, "state_dict": Payload(mark)}
    torch.save(content, path) if new_format else path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="bad.ckpt is refused.*Nothing in it was executed"):
        load_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [{}, {"vaegan": {"format": 99}}, [1], {"vaegan": 3}, {"vaegan": {"format": 1}}])
def test_files_of_others_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt is no checkpoint of this project"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_config_that_names_a_class_by_path_is_no_choice(tmp_path):
    run = {"latent_dim": 2, "dataset": {}, "likelihood": {"name": "os.system"}}
    torch.save({"vaegan": header("vae", (1, 8, 8), run, run), "state_dict": {}, "epoch": 0}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="unknown likelihood 'os.system'"):
        load_checkpoint(tmp_path / "bad.ckpt").build_vae()


@pytest.mark.parametrize(
    "path, message",
    [
        ("/no/such/run", "does not exist; give the folder of a stage=vae run"),
        ("https://example.org/vae.ckpt", "URLs are refused; download the file"),
        (".", r"has no checkpoint \(vae/checkpoints/best.ckpt\)"),
    ],
)
def test_paths_that_lead_nowhere_are_refused(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"vae_ckpt={path}.*{message}"):
        find_checkpoint(path, "vae_ckpt", ["vae"])
