"""Checkpoints: content, validation of untrusted files, and lookup by path."""

import os
import pickle
import resource
import shutil
import time

import pytest
import torch

from tests.untrained import component, make_run, save_gan
from vaegan.checkpoints.checkpoint import (
    FORMAT,
    build_vae,
    check_model_size,
    header,
    load_checkpoint,
)
from vaegan.checkpoints.find_checkpoint import find_checkpoint, load_vae_checkpoint
from vaegan.config import GROUPS


class Payload:
    """Object whose pickle creates a file when it is loaded without restrictions."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def save_altered(result, path, **changes):
    """Save a copy of a run's best checkpoint with some keys changed; return its path."""
    content = torch.load(result.checkpoint, weights_only=True)
    torch.save(content | changes, path)
    return path


@pytest.mark.slow
def test_checkpoint_contains_plain_data_and_a_description(vae_result, gan_result):
    for _, result in (vae_result, gan_result):
        content = torch.load(result.checkpoint, weights_only=True)
        assert content["vaegan"]["stage"] == result.folder.name
        assert content["vaegan"]["image_shape"] == [1, 28, 28]
        assert content["vaegan"]["vae"]["likelihood"] == {"name": "bernoulli", "static_seed": None}


@pytest.mark.slow
def test_loaded_vae_has_the_saved_weights(vae_result):
    checkpoint = load_checkpoint(vae_result[1].checkpoint)
    vae = checkpoint.build_vae()
    assert not vae.training
    for name, value in vae.state_dict().items():
        assert torch.equal(value, checkpoint.state[f"vae.{name}"])


@pytest.mark.slow
def test_gan_checkpoint_is_self_contained(vae_result, gan_result, tmp_path):
    path = shutil.copy(gan_result[1].checkpoint, tmp_path / "gan.ckpt")
    checkpoint = load_checkpoint(path)
    original = load_checkpoint(vae_result[1].checkpoint).build_vae()
    for name, value in checkpoint.build_vae().state_dict().items():
        assert torch.equal(value, original.state_dict()[name])
    images = checkpoint.build_generator()(checkpoint.build_latents()().sample((3,)))
    assert images.shape == (3, 1, 28, 28)
    assert checkpoint.vae_flops == load_checkpoint(vae_result[1].checkpoint).vae_flops > 0


@pytest.mark.slow
def test_first_accepted_stage_is_used_in_a_folder_with_both(vae_result, gan_result, tmp_path):
    for _, result in (vae_result, gan_result):
        shutil.copytree(result.folder, tmp_path / result.folder.name)
    for stages in (["vae", "gan"], ["gan", "vae"]):
        expected = tmp_path / stages[0] / "checkpoints" / "best.ckpt"
        assert find_checkpoint(str(tmp_path), "ckpt", stages) == expected


@pytest.mark.slow
def test_vae_checkpoint_has_no_generator(vae_result):
    with pytest.raises(ValueError, match="only stage=gan checkpoints have a generator"):
        load_checkpoint(vae_result[1].checkpoint).build_generator()


@pytest.mark.slow
def test_best_checkpoint_of_a_folder_is_found(vae_result):
    folder, result = vae_result
    for path in (folder, folder / "vae", folder / "vae" / "checkpoints", result.checkpoint):
        assert find_checkpoint(str(path), "ckpt", ["vae"]) == result.checkpoint
    last = folder / "vae" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(str(last), "ckpt", ["vae"]) == last


@pytest.mark.slow
def test_gan_checkpoint_is_rejected_as_vae_ckpt(gan_result):
    with pytest.raises(
        ValueError, match="is a stage=gan checkpoint; give the stage=vae checkpoint"
    ):
        load_vae_checkpoint(str(gan_result[1].checkpoint), "vae_ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.99])
def test_truncated_file_is_rejected(vae_result, tmp_path, keep):
    content = vae_result[1].checkpoint.read_bytes()
    path = tmp_path / "truncated.ckpt"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="truncated.ckpt is (truncated or damaged|refused)"):
        load_checkpoint(path)


@pytest.mark.slow
def test_missing_weights_are_rejected(vae_result, tmp_path):
    state = load_checkpoint(vae_result[1].checkpoint).state
    state = {key: value for key, value in state.items() if "decoder" not in key}
    path = save_altered(vae_result[1], tmp_path / "less.ckpt", state_dict=state)
    with pytest.raises(
        ValueError, match="less.ckpt .*: the model has more weights than the file; .* train again"
    ):
        load_checkpoint(path).build_vae()


@pytest.mark.slow
def test_renamed_weights_are_rejected(vae_result, tmp_path):
    state = load_checkpoint(vae_result[1].checkpoint).state
    state = {key.replace("decoder", "other"): value for key, value in state.items()}
    path = save_altered(vae_result[1], tmp_path / "other.ckpt", state_dict=state)
    with pytest.raises(
        ValueError, match="other.ckpt do not fit the model that the file describes .* train again"
    ):
        load_checkpoint(path).build_vae()


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("forced", [False, True])
def test_malicious_pickle_is_not_executed(tmp_path, monkeypatch, new_format, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, marker = tmp_path / "bad.ckpt", tmp_path / "executed"
    content = {"vaegan": {"format": 1}, "state_dict": Payload(marker)}
    torch.save(content, path) if new_format else path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="bad.ckpt is refused.*Nothing in it was executed"):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [{}, {"vaegan": {"format": 99}}, [1], {"vaegan": 3}, {"vaegan": {"format": 1}}]
)
def test_foreign_files_are_rejected(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt is not a vaegan checkpoint"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_class_path_is_rejected_as_a_component_name(tmp_path):
    run = {"latent_dim": 2, "dataset": {}, "likelihood": {"name": "os.system"}}
    torch.save(
        {"vaegan": header("vae", (1, 8, 8), run, run), "state_dict": {}, "epoch": 0},
        tmp_path / "bad.ckpt",
    )
    with pytest.raises(ValueError, match="unknown likelihood 'os.system'"):
        load_checkpoint(tmp_path / "bad.ckpt").build_vae()


PLAIN = {
    "latent_dim": 2,
    "dataset": {"name": "mnist"},
    "likelihood": {"name": "bernoulli"},
    "prior": {"name": "standard_normal"},
    "posterior": {"name": "diagonal_normal"},
    "encoder": {"name": "mlp"},
    "decoder": {"name": "mlp"},
}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"likelihood": {"name": "gaussian", "_target_": "os.system"}},
            "unknown key likelihood._target_",
        ),
        ({"likelihood": {"_target_": "os.system"}}, "unknown likelihood None"),
        ({"likelihood": {"name": ["os.system"]}}, r"unknown likelihood \['os.system'\]"),
        ({"likelihood": {"name": "gaussian", 3: 3}}, "unknown key likelihood.3"),
        (
            {"likelihood": {"name": "gaussian", "scale": "${oc.env:HOME}"}},
            r"likelihood.scale must be plain data.*got '\$\{oc.env",
        ),
        ({"latent_dim": "${oc.env:HOME}"}, "latent_dim must be plain data, without"),
        ({"latent_dim": torch.ones(3)}, "latent_dim must be plain data, without"),
        ({"latent_dim": 0}, "latent_dim must be at least 1"),
        ({"latent_dim": 10**9}, "the model has more weights than the file"),
        ({"latent_dim": 10**30}, ""),
        (
            {"encoder": {"name": "mlp", "hidden_dims": [10**7]}},
            "the model has more weights than the file",
        ),
        (
            {"prior": {"name": "vamp_prior", "num_pseudo_inputs": 10**9}},
            "the model has more weights",
        ),
    ],
)
def test_invalid_model_config_is_rejected(tmp_path, changes, message):
    content = {
        "vaegan": header("vae", (1, 8, 8), {}, PLAIN | changes),
        "state_dict": {},
        "epoch": 0,
    }
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=f"bad.ckpt does not describe a vaegan model: .*{message}"):
        load_checkpoint(tmp_path / "bad.ckpt").build_vae()


@pytest.mark.parametrize(
    "head, state",
    [
        ({"stage": "os.system"}, {}),
        ({"stage": "gan"}, {}),
        ({"image_shape": [1, 8]}, {}),
        ({"image_shape": 10**400}, {}),
        ({"vae": [1]}, {}),
        ({"vae": {}}, {}),
        ({"vae": PLAIN | {"likelihood": "os.system"}}, {}),
        ({"vae": PLAIN | {"dataset": None}}, {}),
        ({"vae_flops": "many"}, {}),
        ({}, {3: torch.ones(1)}),
        ({}, {"vae.a": "os.system"}),
        ({}, [1]),
        ({}, {"vae.a": torch.zeros(1).expand(10**12)}),
    ],
)
def test_malformed_description_or_state_is_rejected(tmp_path, head, state):
    content = {
        "vaegan": header("vae", (1, 8, 8), {}, PLAIN) | head,
        "state_dict": state,
        "epoch": 0,
    }
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match="bad.ckpt is not a vaegan checkpoint"):
        load_checkpoint(tmp_path / "bad.ckpt")


def test_minimal_checkpoint_is_valid(tmp_path):
    vae = build_vae(PLAIN, (1, 8, 8))
    state = {f"vae.{key}": value for key, value in vae.state_dict().items()}
    content = {"vaegan": header("vae", (1, 8, 8), {}, PLAIN), "state_dict": state, "epoch": 0}
    torch.save(content, tmp_path / "good.ckpt")
    loaded = load_checkpoint(tmp_path / "good.ckpt").build_vae()
    assert all(
        torch.equal(value, vae.state_dict()[key]) for key, value in loaded.state_dict().items()
    )


@pytest.mark.parametrize("network", ["conv", "resnet"])
@pytest.mark.parametrize(
    "setting, shape, resampling",
    [
        ({}, (3, 8, 8), "strided"),
        ({"resampling": None}, (1, 32, 32), "strided"),
        ({"resampling": None}, (1, 33, 28), "bilinear"),
        ({"resampling": None}, (3, 8, 8), "bilinear"),
    ],
)
def test_models_of_earlier_versions_are_the_same(tmp_path, network, setting, shape, resampling):
    sizes = {"width": 4, "hidden_dim": 8, "resampling": resampling}
    nets = {name: component(name, network, **sizes) for name in ("encoder", "decoder")}
    path = save_gan(tmp_path / "gan.ckpt", make_run(shape, **nets))
    z, x = torch.randn(2, 4), torch.rand(2, *shape)

    def outputs():
        vae = load_checkpoint(path).build_vae()
        return vae.encode(x).mean, vae.decode(z).mean, load_checkpoint(path).build_generator()(z)

    expected = outputs()
    content = torch.load(path, weights_only=True)
    for name in ("encoder", "decoder"):
        part = content["vaegan"]["vae"][name]
        del part["resampling"]
        part |= setting
    torch.save(content, path)
    assert all(torch.equal(*pair) for pair in zip(outputs(), expected, strict=True))


@pytest.mark.parametrize("other", [1, FORMAT - 1, FORMAT + 1])
def test_other_format_versions_are_rejected(tmp_path, other):
    description = header("vae", (1, 8, 8), {}, PLAIN) | {"format": other}
    torch.save({"vaegan": description, "state_dict": {}, "epoch": 0}, tmp_path / "old.ckpt")
    message = f"old.ckpt has checkpoint format {other}, but this version reads format {FORMAT}"
    with pytest.raises(ValueError, match=f"{message}; train again with this version"):
        load_checkpoint(tmp_path / "old.ckpt")


MODEL_GROUPS = ("likelihood", "prior", "posterior", "encoder", "decoder")
CHOICES = [(group, name) for group in MODEL_GROUPS for name in GROUPS[group].choices]


@pytest.mark.parametrize("group, name", CHOICES)
def test_model_size_check_is_exact_for_every_component(group, name):
    """Otherwise valid checkpoints could be rejected, or oversized models accepted."""
    plain = PLAIN | {"latent_dim": 5, group: {"name": name}}
    vae = build_vae(plain, (1, 8, 9))
    state = vae.state_dict()
    check_model_size(plain, (1, 8, 9), state)
    num_weights = sum(parameter.numel() for parameter in vae.parameters())
    with pytest.raises(ValueError, match="the model has more weights than the file"):
        check_model_size(plain, (1, 8, 9), {key: torch.zeros(0) for key in state})
    one_tensor = {"all": torch.zeros(num_weights)}
    with pytest.raises(ValueError, match="the model has more weights than the file"):
        check_model_size(plain, (1, 8, 9), one_tensor)


HUGE = 10**9
DEEP_LIST = [1]
for _ in range(15):
    DEEP_LIST = [DEEP_LIST] * 10


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_dim": HUGE},
        {"latent_dim": 10**5, "posterior": {"name": "flow", "hidden_dims": [1]}},
        {"latent_dim": 10**5, "posterior": {"name": "full_normal"}},
        {"posterior": {"name": "flow", "num_transforms": HUGE}},
        {"posterior": {"name": "flow", "context_dim": HUGE}},
        {"posterior": {"name": "flow", "hidden_dims": [10**6] * 100}},
        {"prior": {"name": "flow", "num_transforms": HUGE, "hidden_dims": [1]}},
        {"prior": {"name": "flow", "num_transforms": HUGE, "kind": "affine", "hidden_dims": []}},
        {"prior": {"name": "flow", "hidden_dims": [10**6, 10**6]}},
        {"latent_dim": HUGE, "prior": {"name": "flow"}},
        {"prior": {"name": "gaussian_mixture", "num_components": HUGE}},
        {"encoder": {"name": "mlp", "hidden_dims": [1] * 10**6}},
        {"encoder": {"name": "mlp", "hidden_dims": DEEP_LIST}},
        {"encoder": {"name": "resnet", "num_blocks": HUGE}},
        {"decoder": {"name": "resnet", "num_blocks": HUGE, "width": 1}},
        {"decoder": {"name": "conv", "width": HUGE}},
        {"likelihood": {"name": "discretized_logistic_mixture", "num_components": HUGE}},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_config_of_a_huge_model_is_rejected_quickly_with_little_memory(changes):
    state = build_vae(PLAIN, (1, 8, 8)).state_dict()
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError):
        check_model_size(PLAIN | changes, (1, 8, 8), state)
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # kilobytes


@pytest.mark.slow
def test_aggregate_posterior_of_another_size_is_rejected(gan_result, tmp_path):
    state = load_checkpoint(gan_result[1].checkpoint).state
    state |= {"aggregate.mean": torch.zeros(3), "aggregate.scale_tril": torch.eye(3)}
    path = save_altered(gan_result[1], tmp_path / "other.ckpt", state_dict=state)
    with pytest.raises(ValueError, match="its aggregate posterior does not have latent_dim=8"):
        load_checkpoint(path).build_latents()
    state |= {"aggregate.mean": torch.zeros(8), "aggregate.scale_tril": torch.eye(8)}
    for centers in (torch.zeros(5, 3), torch.zeros(())):
        state["aggregate.centers"] = centers
        path = save_altered(gan_result[1], tmp_path / "centers.ckpt", state_dict=state)
        with pytest.raises(ValueError, match="centers.ckpt is damaged: its aggregate posterior"):
            load_checkpoint(path).build_latents()


@pytest.mark.slow
def test_last_checkpoint_is_loaded_safely_for_the_training_flops(vae_result, tmp_path):
    shutil.copy(vae_result[1].checkpoint, tmp_path / "best.ckpt")
    torch.save({"vaegan": Payload(tmp_path / "executed")}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="last.ckpt is refused.*Nothing in it was executed"):
        load_checkpoint(tmp_path / "best.ckpt").training_flops()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "gs", "hf", "file", "ftp"])
@pytest.mark.parametrize("key", ["ckpt", "vae_ckpt"])
def test_urls_are_rejected(scheme, key):
    with pytest.raises(ValueError, match=f"{key}={scheme}://x/vae.ckpt: URLs are not supported"):
        find_checkpoint(f"{scheme}://x/vae.ckpt", key, ["vae"])


@pytest.mark.parametrize(
    "path, message",
    [
        ("/no/such/run", "does not exist; give the folder of a stage=vae run"),
        ("https://example.org/vae.ckpt", "URLs are not supported; download the file"),
        (".", r"has no checkpoint \(vae/checkpoints/best.ckpt\)"),
    ],
)
def test_paths_without_a_checkpoint_are_rejected(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"vae_ckpt={path}.*{message}"):
        find_checkpoint(path, "vae_ckpt", ["vae"])
