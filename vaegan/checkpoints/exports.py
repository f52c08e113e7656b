"""Exported models: `model.safetensors`, the tensors, and beside it `model.json`, what they are. Data, and nothing else.

The JSON holds what a checkpoint says of itself (`vaegan.checkpoints.header`), and

    {"epoch": finished ones, "tensors": {name: {"dtype": ..., "shape": [...]}}, "sha256": of model.safetensors}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vaegan.runtime.atomic_files import atomic_write

MODEL = "model.safetensors"
MAX_JSON_BYTES = 16 * 2**20  # of a description; ours have some kilobytes


def write_export(
    folder: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write both files into a folder, or none of them.

    Returns:
        Path of the tensors.

    Raises:
        ValueError: An export is there already, or the files cannot be written.
    """
    path = folder / MODEL
    if path.exists() or path.with_suffix(".json").exists():
        raise ValueError(
            f"{folder} holds an export already, which is never overwritten; choose another folder"
        )
    apart = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    content = save(apart)
    found = {"tensors": describe(apart), "sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps({**description, **found}, indent=2) + "\n"
    try:
        with atomic_write(path) as file:
            file.write(content)
        with atomic_write(path.with_suffix(".json")) as file:
            file.write(text.encode())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"{folder}: the export cannot be written ({error.strerror}); nothing of it is kept"
        ) from error
    return path


def read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of an export, by the path of its tensors.

    Raises:
        ValueError: A file is missing or damaged, or the two do not belong together.
    """
    description = read_description(path.with_suffix(".json"))
    try:
        content = path.read_bytes()
        is_whole = hashlib.sha256(content).hexdigest() == description.get("sha256")
        tensors = load(content) if is_whole else {}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}); use another copy"
        ) from error
    if not is_whole or describe(tensors) != description.get("tensors"):
        raise ValueError(
            f"{path} is damaged, or belongs to another export: it is not what {path.with_suffix('.json').name} beside "
            "it says (sha256, tensors); copy both files again"
        )
    return description, tensors


def read_description(path: Path) -> dict[str, Any]:
    """The JSON of an export.

    Raises:
        ValueError: It is missing, too large, or no JSON object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); an export is two files, copy both"
        ) from error
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"{path} is refused: it has more than {MAX_JSON_BYTES} bytes, and no description needs them"
        )
    try:
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON ({error}); use another copy") from error
    if not isinstance(description, dict):
        raise ValueError(f"{path} must hold a JSON object; got a {type(description).__name__}")
    return description


def describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Type and shape of each tensor, for JSON."""
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in sorted(tensors.items())
    }
