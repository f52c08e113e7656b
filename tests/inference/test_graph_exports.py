"""ONNX and torch.export files equal the model."""

import json
from itertools import product

import pytest
import torch

from tests.conftest import compose
from tests.untrained import component, make_run, save_gan, save_vae
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.inference import graph_exports
from vaegan.inference.graph_exports import largest_difference, make_graphs, write_graph
from vaegan.stages.stage_table import run_stage

SHAPES = {"gray": (1, 28, 28), "color": (3, 64, 64)}


CONV_SETTINGS = {
    "strided": {"resampling": "strided"},
    "replicate": {"padding": "replicate"},
    "noise": {"padding": "replicate"},  # skip-layer excitation, and noise inputs in the generator
}


def make_network_run(network, shape):
    """Return the settings of a VAE with small networks, or conv with a key of CONV_SETTINGS."""
    if network not in CONV_SETTINGS:
        return make_run(shape, network)
    settings = {"width": 8, "hidden_dim": 16, **CONV_SETTINGS[network]}
    decoder = component("decoder", "conv", **settings, skip_excitation=network == "noise")
    return make_run(shape, encoder=component("encoder", "conv", **settings), decoder=decoder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "file_format, network, shape",
    [
        *product(["pt2"], ["conv", "resnet", "mlp"], SHAPES),
        ("pt2", "strided", "gray"),
        ("pt2", "replicate", "color"),
        ("pt2", "noise", "color"),
        ("onnx", "conv", "gray"),
        ("onnx", "strided", "gray"),
        ("onnx", "noise", "color"),
        ("onnx", "resnet", "color"),
        ("onnx", "mlp", "gray"),
    ],
)
def test_networks_differ_by_less_than_1e_5_on_100_inputs(file_format, network, shape, tmp_path):
    if file_format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    checkpoint = load_checkpoint(
        save_gan(
            tmp_path / "gan.ckpt",
            make_network_run(network, SHAPES[shape]),
            has_noise=network == "noise",
        )
    )
    graphs = make_graphs(checkpoint)
    assert [graph.name for graph in graphs] == ["decoder", "generator", "encoder"]
    for graph in graphs[1:]:
        assert len(graph.inputs) == 100
        assert write_graph(graph, file_format, tmp_path) < 1e-5


@pytest.mark.slow
def test_pt2_runs_in_any_batch_size_and_has_metadata(tmp_path):
    path = save_vae(tmp_path / "vae.ckpt", make_run(network="mlp"))
    run_stage(compose("stage=export", f"ckpt={path}", "format=pt2"), tmp_path)
    folder = tmp_path / "export"
    names = {"decoder.pt2", "encoder.pt2", "README.md", "samples.png"}
    assert {file.name for file in folder.iterdir()} == names
    extra = {"metadata.json": ""}
    program = torch.export.load(folder / "encoder.pt2", extra_files=extra).module()
    mean, stddev = program(torch.rand(7, 1, 28, 28))
    assert mean.shape == stddev.shape == (7, 4)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["image_shape"] == [1, 28, 28] and "[0, 1]" in metadata["image_range"]
    assert metadata["preprocessing"].startswith("binarize at random")
    assert "largest difference from PyTorch" in (folder / "README.md").read_text()


def test_onnx_has_metadata(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    checkpoint = load_checkpoint(save_vae(tmp_path / "vae.ckpt", make_run(network="mlp")))
    (decoder, _) = make_graphs(checkpoint)
    write_graph(decoder, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["latent_dim"] == "4" and "[0, 1]" in metadata["image_range"]
    (images,) = session.run(None, {"z": torch.zeros(5, 4).numpy()})
    assert images.shape == (5, 1, 28, 28)


def test_a_file_that_differs_is_removed(tmp_path, monkeypatch):
    checkpoint = load_checkpoint(save_vae(tmp_path / "vae.ckpt", make_run(network="mlp")))
    (decoder, _) = make_graphs(checkpoint)
    monkeypatch.setattr(graph_exports, "run_pt2", lambda path, inputs: decoder.module(inputs) + 0.1)
    with pytest.raises(ValueError, match=r"decoder.pt2 differs from PyTorch by up to 1.0e-01"):
        write_graph(decoder, "pt2", tmp_path)
    assert not (tmp_path / "decoder.pt2").exists()


def test_a_flow_posterior_has_no_encoder_graph(tmp_path, caplog):
    run = make_run(network="mlp", posterior=component("posterior", "flow"))
    graphs = make_graphs(load_checkpoint(save_vae(tmp_path / "vae.ckpt", run)))
    assert [graph.name for graph in graphs] == ["decoder"]
    assert "the encoder is not exported" in caplog.text


def test_onnx_without_its_packages_is_rejected(tmp_path, monkeypatch):
    path = save_vae(tmp_path / "vae.ckpt", make_run(network="mlp"))
    assert graph_exports.ONNX_PACKAGES == ("onnx", "onnxscript", "onnxruntime")
    monkeypatch.setattr(graph_exports, "ONNX_PACKAGES", ("missing_onnx",))
    message = "format=onnx needs missing_onnx; install with: uv sync --extra onnx"
    with pytest.raises(ValueError, match=message):
        run_stage(compose("stage=export", f"ckpt={path}", "format=onnx"), tmp_path)


def test_largest_difference_covers_all_outputs():
    x = torch.zeros(3)
    assert largest_difference((x, x), (x, x + 2)) == 2 == largest_difference(x, x - 2)
    assert not largest_difference(x, x * torch.nan) <= 1
