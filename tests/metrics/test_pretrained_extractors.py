"""CLIP and DINOv2 as feature extractors, with random weights; nothing is downloaded."""

import math
import socket

import pytest
import torch
from torch.nn import functional as F

from tests.metrics.test_feature_extractors import build
from vaegan.metrics import pretrained_extractors
from vaegan.metrics.pretrained_extractors import build_dinov2, load_weights, resize_positions
from vaegan.runtime.downloads import SECONDS_WITHOUT_DATA


def dinov2_weights(width=12, num_blocks=2, grid_size=37):
    """Return a random state dict of a small DINOv2."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid_size**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(num_blocks):
        for name, (num_outputs, num_inputs) in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = (num_outputs * width, num_inputs * width)
            shapes[f"blocks.{i}.{name}.bias"] = (num_outputs * width,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (width,)
        for name in ("ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (width,)
    return {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}


def dinov2(weights, images, num_heads):
    """Return the class tokens of DINOv2, written out from its definition."""

    def norm(x, name):
        return F.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6
        )

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    patches = F.unfold(images, 14, stride=14).movedim(1, 2)
    kernel = weights["patch_embed.proj.weight"].flatten(1)
    tokens = patches @ kernel.T + weights["patch_embed.proj.bias"]
    x = torch.cat([weights["cls_token"].expand(len(images), -1, -1), tokens], 1)
    x = x + resize_positions(weights["pos_embed"], 16)
    num_blocks = sum(name.endswith("ls1.gamma") for name in weights)
    for i in range(num_blocks):
        block = f"blocks.{i}."
        qkv = linear(norm(x, f"{block}norm1"), f"{block}attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
        weight = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        attention = linear((weight @ v).transpose(1, 2).flatten(2), f"{block}attn.proj")
        x = x + weights[f"{block}ls1.gamma"] * attention
        hidden = F.gelu(linear(norm(x, f"{block}norm2"), f"{block}mlp.fc1"))
        x = x + weights[f"{block}ls2.gamma"] * linear(hidden, f"{block}mlp.fc2")
    return norm(x, "norm")[:, 0]


def test_dinov2_equals_its_definition():
    weights = dinov2_weights()
    images = torch.randn(2, 3, 224, 224)
    net = build_dinov2(weights, num_heads=3).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(images), dinov2(weights, images, 3), rtol=1e-4, atol=1e-5)


def test_position_embeddings_keep_the_class_token_and_are_resized():
    ramp = torch.linspace(0, 1, 37).expand(37, 37).reshape(1, -1, 1)
    resized = resize_positions(torch.cat([torch.full((1, 1, 1), 9.0), ramp], 1), 16)
    assert resized.shape == (1, 257, 1) and resized[0, 0] == 9
    rows = resized[0, 1:, 0].view(16, 16)
    torch.testing.assert_close(rows[0], rows[7])
    assert (rows[0].diff() > 0).all() and resized[0, 1:].min() < 0.03 < 0.97 < resized.max()


def test_dinov2_reads_a_weights_file(tmp_path):
    torch.save(dinov2_weights(width=384, num_blocks=1), tmp_path / "weights.pth")
    network = build("dinov2", path=str(tmp_path / "weights.pth"))
    images = torch.rand(2, 1, 28, 28)
    features = network(images)
    assert features.shape == (2, network.num_features) and not features.requires_grad
    assert network.classify(features) is None and network.IS_FIXED
    torch.testing.assert_close(network(images.expand(-1, 3, -1, -1)), features)


def test_dinov2_rejects_missing_and_wrong_weights(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(ValueError, match="weights.pth does not exist; download https://"):
        build("dinov2", path=str(path))
    torch.save({"cls_token": torch.zeros(1, 1, 384)}, path)
    with pytest.raises(ValueError, match="must contain the weights of DINOv2 ViT-S/14; download"):
        build("dinov2", path=str(path))
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="is damaged or contains objects other than tensors"):
        build("dinov2", path=str(path))


def fail(*args, **kwargs):
    raise OSError("no route to host")


def test_failed_downloads_are_reported(monkeypatch):
    import torch_fidelity.feature_extractor_clip as library

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr(library, "load_state_dict_from_url", fail)
    for name in ("dinov2", "clip"):
        message = f"feature_extractor={name}: cannot download .*no route to host.*; download https"
        with pytest.raises(ValueError, match=message):
            build(name)


def test_a_damaged_download_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "dinov2_vits14_pretrain.pth"
    path.parent.mkdir()
    for content in (b"<html>", b""):
        path.write_bytes(content)
        message = f"downloaded to {path.parent} are damaged; delete them .*, or download https"
        with pytest.raises(ValueError, match=message):
            build("dinov2")


def test_clip_reads_only_the_published_file(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    with pytest.raises(ValueError, match="path=.* cannot be read; download https://"):
        build("clip", path=str(path))
    path.write_bytes(b"another file")
    with pytest.raises(ValueError, match="SHA-256 checksum of feature_extractor.path=.* must be"):
        build("clip", path=str(path))


def test_clip_returns_the_features_of_torch_fidelity(monkeypatch):
    import torch_fidelity.feature_extractor_clip as library

    class Network(torch.nn.Module):
        def __init__(self, name, features, path):
            super().__init__()
            assert (name, features, path) == ("clip-vit-b-32", ["clip"], "weights.pt")

        def forward(self, pixels):
            assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 28, 28)
            return (pixels.float().mean((2, 3)).repeat(1, 171)[:, :512],)

    monkeypatch.setattr(library, "FeatureExtractorCLIP", Network)
    monkeypatch.setattr(pretrained_extractors, "check_sha256", lambda *args: None)
    network = build("clip", path="weights.pt")
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, network.num_features)


def test_a_download_does_not_wait_forever(monkeypatch):
    def download(url, **options):
        return {"timeout": socket.getdefaulttimeout()}

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    assert load_weights(None, "https://example.org/weights", "")["timeout"] == SECONDS_WITHOUT_DATA
