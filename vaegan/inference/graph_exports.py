"""Export networks as ONNX or torch.export programs, verified against PyTorch."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from zuko.distributions import NormalizingFlow

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.gan.generator import Generator
from vaegan.runtime.seeding import seeded
from vaegan.vae.model import VAE

log = logging.getLogger(__name__)
MAX_DIFFERENCE = 1e-4  # largest accepted difference from PyTorch
NUM_CHECKED = 100  # inputs that are compared
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class EncoderGraph(nn.Module):
    """Encoder of a VAE: images (B, C, H, W) to mean and standard deviation of q(z | x)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(images)
        return posterior.mean, posterior.stddev


class Graph(NamedTuple):
    """A network to export."""

    name: str  # name of the file, without suffix
    module: nn.Module
    inputs: Tensor  # inputs to compare on, (NUM_CHECKED, ...)
    input_name: str
    output_names: list[str]
    metadata: dict[str, Any]  # written into the file


def check_format(file_format: str) -> None:
    """Check that the packages for a format are installed.

    Raises:
        ValueError: A package is missing.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if file_format == "onnx" and missing:
        raise ValueError(
            f"format=onnx needs {', '.join(missing)}; install with: uv sync --extra onnx, or "
            "pip install '.[onnx]'"
        )


def make_graphs(checkpoint: Checkpoint) -> list[Graph]:
    """Return the networks of a model: generator (GAN), decoder and encoder."""
    vae = checkpoint.build_vae()
    latents = checkpoint.build_latents()
    shape = list(checkpoint.image_shape)
    with torch.no_grad(), seeded("export"):
        z = latents().sample(torch.Size([NUM_CHECKED]))
        images = torch.rand(NUM_CHECKED, *shape)
    metadata = {
        "vaegan_stage": checkpoint.stage,
        "image_shape": shape,
        "latent_dim": z.shape[1],
        "likelihood": checkpoint.vae["likelihood"]["name"],
        "image_range": "float32 in [0, 1], (batch, channels, height, width)",
    }
    decoding = metadata | {"input": "latents, float32 (batch, latent_dim)", "output": "images"}
    outputs = ["images"]
    decoder = Generator(vae.decoder, vae.likelihood)
    graphs = [Graph("decoder", decoder, z, "z", outputs, decoding)]
    if checkpoint.stage == "gan":
        graphs.append(Graph("generator", checkpoint.build_generator(), z, "z", outputs, decoding))
    if isinstance(vae.encode(images[:1]), NormalizingFlow):
        log.warning("the encoder is not exported: q(z|x) is a flow without closed-form moments")
        return graphs
    encoding = metadata | {"input": "images", "preprocessing": vae.likelihood.preprocessing}
    encoding |= {"output": "mean and standard deviation of q(z|x), (batch, latent_dim)"}
    outputs = ["mean", "stddev"]
    return [*graphs, Graph("encoder", EncoderGraph(vae), images, "images", outputs, encoding)]


def write_graph(graph: Graph, file_format: str, folder: Path) -> float:
    """Write a network in a format with a dynamic batch size, and compare it with PyTorch.

    Returns:
        The largest absolute difference of the outputs from PyTorch's.

    Raises:
        ValueError: The difference is larger than `MAX_DIFFERENCE`. The file is removed.
    """
    path = folder / f"{graph.name}.{file_format}"
    graph.module.eval().requires_grad_(False)
    with quiet_exporter():
        write = write_onnx if file_format == "onnx" else write_pt2
        write(graph, path)
        run = run_onnx if file_format == "onnx" else run_pt2
        difference = max(
            largest_difference(graph.module(inputs), run(path, inputs))
            for inputs in (graph.inputs, graph.inputs[:1])
        )
    if not difference <= MAX_DIFFERENCE:
        path.unlink()
        raise ValueError(
            f"{path.name} differs from PyTorch by up to {difference:.1e}, more than "
            f"{MAX_DIFFERENCE:.0e}; it was removed. Use another format, or another version of its "
            "packages"
        )
    return difference


def write_pt2(graph: Graph, path: Path) -> None:
    """Write a torch.export program."""
    extra = {"metadata.json": json.dumps(graph.metadata)}
    torch.export.save(to_program(graph), path, extra_files=extra)


def run_pt2(path: Path, inputs: Tensor) -> Any:
    """Return the outputs of a torch.export program."""
    return torch.export.load(path).module()(inputs)


def write_onnx(graph: Graph, path: Path) -> None:
    """Write an ONNX model."""
    program = torch.onnx.export(
        to_program(graph),
        dynamo=True,
        input_names=[graph.input_name],
        output_names=graph.output_names,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update({key: str(value) for key, value in graph.metadata.items()})
    program.save(path)


def run_onnx(path: Path, inputs: Tensor) -> Any:
    """Return the outputs of an ONNX model on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return tuple(torch.from_numpy(output) for output in outputs)


def to_program(graph: Graph) -> torch.export.ExportedProgram:
    """Return the network as a torch.export program with a dynamic batch size."""
    dynamic = ({0: torch.export.Dim("batch", min=1)},)
    example = graph.inputs[:3]  # a batch size of 1 would be treated as a constant
    return torch.export.export(graph.module, (example,), dynamic_shapes=dynamic)


def largest_difference(expected: Any, outputs: Any) -> float:
    """Return the largest absolute difference between two tensors or tuples of tensors."""
    pairs = zip(as_tuple(expected), as_tuple(outputs), strict=True)
    return max(float((first - second).abs().max()) for first, second in pairs)


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the warnings and messages of torch's exporters about their own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
