"""Feature extractors trained on many photographs: CLIP and DINOv2.

Their features represent the content of an image better than those of InceptionV3 (Stein et al.
2023, arXiv:2306.04675). Weights are read from a file or downloaded. Nothing that is downloaded is
executed: torch-fidelity would run the code of the DINOv2 repository, so the network is built from
torchvision here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaegan.config import require
from vaegan.metrics.feature_extractors import (
    FeatureExtractor,
    read_weights_file,
    to_color,
    to_path,
)
from vaegan.runtime.downloads import downloading_weights
from vaegan.vae.model import VAE

INSTALL = "Install it with: uv sync --extra inception, or pip install '.[inception]'"


class ClipExtractor(FeatureExtractor):
    """Image embeddings (B, 512) of CLIP ViT-B/32, from torch-fidelity.

    Source: Radford et al. 2021, arXiv:2103.00020.
    """

    NETWORK: ClassVar[str] = "clip-vit-b-32"

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "clip"
        path: str | None = None  # OpenAI's weights file (ViT-B-32.pt); null: download

    num_features = 512

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        try:
            from torch_fidelity import feature_extractor_clip as library
        except ImportError as error:
            message = f"feature_extractor=clip requires torch-fidelity. {INSTALL}"
            raise ValueError(message) from error
        url = library.MODEL_URLS[self.NETWORK]
        remedy = f"download {url} and set feature_extractor.path to it"
        path = to_path(config.path)
        if path is not None:
            check_sha256(path, library.MODEL_METADATA[self.NETWORK]["hash"], remedy)
        with downloading_weights("feature_extractor=clip", remedy):
            self.net = library.FeatureExtractorCLIP(
                self.NETWORK, ["clip"], None if path is None else str(path)
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(to_color(images))[0]


class DinoV2Extractor(FeatureExtractor):
    """Class tokens (B, 384) of DINOv2 ViT-S/14, at 224 x 224 pixels.

    Source: Oquab et al. 2023, arXiv:2304.07193.
    """

    URL: ClassVar[str] = (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
    )
    SIZE: ClassVar[int] = 224  # pixels that images are resized to
    MEAN: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    STD: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "dinov2"
        path: str | None = None  # weights file (dinov2_vits14_pretrain.pth); null: download

    num_features = 384

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        remedy = f"download {self.URL} and set feature_extractor.path to it"
        path = to_path(config.path)
        weights = load_weights(path, self.URL, remedy)
        try:
            self.net = build_dinov2(weights)
        except (KeyError, RuntimeError) as error:
            raise ValueError(
                f"feature_extractor.path={path} must contain the weights of DINOv2 ViT-S/14; "
                f"{remedy}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        size = [self.SIZE, self.SIZE]
        pixels = to_color(images).float() / 255
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.MEAN, self.STD))
        return self.net((pixels - mean) / std)


def load_weights(path: Path | None, url: str, remedy: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file, or of the file at a URL; nothing is executed.

    Raises:
        ValueError: The download failed, or the file is missing, damaged, or contains anything but a
            dict of tensors.
    """
    if path is None:
        with downloading_weights("feature_extractor=dinov2", remedy):
            weights: Any = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=False, weights_only=True
            )
        return weights
    return read_weights_file(path, remedy)


def build_dinov2(weights: dict[str, Tensor], num_heads: int = 6) -> nn.Module:
    """Return torchvision's vision transformer with the weights of DINOv2; it maps to class tokens.

    The two networks differ in two ways, which are folded into the weights: DINOv2 multiplies the
    output of each residual branch by a learned scale, and its position embeddings are for images of
    518 x 518 pixels.

    Args:
        weights: State dict of the DINOv2 repository.
        num_heads: Attention heads of the network.

    Raises:
        KeyError: A tensor is missing.
        RuntimeError: A tensor has another shape.
    """
    from torchvision.models import VisionTransformer

    width, _, patch_size, _ = weights["patch_embed.proj.weight"].shape
    num_layers = sum(key.endswith(".ls1.gamma") for key in weights)
    with torch.random.fork_rng(devices=[]):  # keep the random state of the run
        net = VisionTransformer(
            image_size=DinoV2Extractor.SIZE,
            patch_size=patch_size,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_dim=width,
            mlp_dim=4 * width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    net.heads = nn.Identity()
    net.load_state_dict(convert_weights(weights, num_layers, DinoV2Extractor.SIZE // patch_size))
    return net


def convert_weights(
    weights: dict[str, Tensor], num_layers: int, grid_size: int
) -> dict[str, Tensor]:
    """Return the weights of DINOv2 under the names of torchvision, for grid_size^2 patches."""
    state = {
        "class_token": weights["cls_token"],
        "conv_proj.weight": weights["patch_embed.proj.weight"],
        "conv_proj.bias": weights["patch_embed.proj.bias"],
        "encoder.pos_embedding": resize_positions(weights["pos_embed"], grid_size),
        "encoder.ln.weight": weights["norm.weight"],
        "encoder.ln.bias": weights["norm.bias"],
    }
    for i in range(num_layers):
        state |= convert_block(weights, f"blocks.{i}.", f"encoder.layers.encoder_layer_{i}.")
    return state


def convert_block(weights: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """Return the weights of a block of DINOv2 under the names of torchvision."""
    scaled = {  # layer -> scale of its output
        "attn.proj": weights[f"{source}ls1.gamma"],
        "mlp.fc2": weights[f"{source}ls2.gamma"],
    }
    names = {
        "norm1": "ln_1.",
        "attn.qkv": "self_attention.in_proj_",
        "attn.proj": "self_attention.out_proj.",
        "norm2": "ln_2.",
        "mlp.fc1": "mlp.0.",
        "mlp.fc2": "mlp.3.",
    }
    state: dict[str, Tensor] = {}
    for name, renamed in names.items():
        weight, bias = weights[f"{source}{name}.weight"], weights[f"{source}{name}.bias"]
        if name in scaled:
            weight, bias = scaled[name].unsqueeze(1) * weight, scaled[name] * bias
        state |= {f"{target}{renamed}weight": weight, f"{target}{renamed}bias": bias}
    return state


def resize_positions(embedding: Tensor, size: int) -> Tensor:
    """Resize position embeddings (1, 1 + M * M, D) to size x size patches, as DINOv2 does.

    The first embedding, that of the class token, is kept.
    """
    grid_size = int((embedding.shape[1] - 1) ** 0.5)
    class_position, grid = embedding[:, :1], embedding[:, 1:]
    if grid_size != size:
        planes = grid.unflatten(1, (grid_size, grid_size)).movedim(-1, 1)
        scale = (size + 0.1) / grid_size  # the offset of the DINOv2 repository
        planes = F.interpolate(planes, scale_factor=(scale, scale), mode="bicubic")
        grid = planes.flatten(2).movedim(1, 2)
    return torch.cat([class_position, grid], 1)


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Check that a file is the published one, because torch-fidelity would unpickle any other.

    Raises:
        ValueError: The file is missing or has another checksum.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"feature_extractor.path={path} cannot be read; {remedy}") from error
    key = f"the SHA-256 checksum of feature_extractor.path={path}"
    require(digest == expected, key, f"{expected}; {remedy}", digest)
