"""Exported models: tensors in `model.safetensors` and their description in `config.json`.

The JSON contains the keys of `vaegan.checkpoints.checkpoint.header`, and

    {"epoch": number of completed epochs,
     "tensors": {name: {"dtype": ..., "shape": [...]}},
     "sha256": checksum of model.safetensors}
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

from vaegan.runtime.atomic_files import atomic_write, write_json

EXPORT_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MAX_JSON_BYTES = 16 * 2**20  # size limit of config.json, which takes a few kilobytes


def write_export(
    folder: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write both files into a folder; if one cannot be written, neither is kept.

    Returns:
        Path of the .safetensors file.

    Raises:
        ValueError: The folder already contains an export, or the files cannot be written.
    """
    path = folder / EXPORT_FILE
    if path.exists() or (folder / CONFIG_FILE).exists():
        raise ValueError(
            f"{folder} already contains an export and will not be overwritten; choose another "
            "folder"
        )
    copies: dict[str, Tensor] = {}  # safetensors rejects shared memory and non-contiguous layouts
    for name, tensor in tensors.items():
        copies[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    content = save(copies)
    checksum = hashlib.sha256(content).hexdigest()
    try:
        with atomic_write(path) as file:
            file.write(content)
        write_json(
            folder / CONFIG_FILE,
            {**description, "tensors": describe_tensors(copies), "sha256": checksum},
        )
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"{folder}: the export cannot be written ({error.strerror}); no files were kept"
        ) from error
    return path


def read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the description and the tensors of an export, given its .safetensors file.

    Raises:
        ValueError: A file is missing or damaged, or the two files do not belong together.
    """
    json_path = path.with_name(CONFIG_FILE)
    if not json_path.exists() and path.with_suffix(".json").exists():
        json_path = path.with_suffix(".json")  # as earlier versions named it
    description = read_description(json_path)
    tensors: dict[str, Tensor] = {}
    try:
        content = path.read_bytes()
        is_intact = hashlib.sha256(content).hexdigest() == description.get("sha256")
        if is_intact:
            tensors = load(content)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or not a safetensors file ({error}); use another copy"
        ) from error
    if not is_intact or describe_tensors(tensors) != description.get("tensors"):
        raise ValueError(
            f"{path} is damaged or belongs to another export: {json_path.name} next to it lists "
            "other contents (sha256, tensors); copy both files again"
        )
    return description, tensors


def read_description(path: Path) -> dict[str, Any]:
    """Read the JSON description of an export.

    Raises:
        ValueError: The file is missing, too large, or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); an export consists of two files, copy both"
        ) from error
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"{path} is refused: it is larger than {MAX_JSON_BYTES} bytes, the limit for a model "
            "description"
        )
    try:
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or not JSON ({error}); use another copy") from error
    if not isinstance(description, dict):
        raise ValueError(f"{path} must contain a JSON object; got a {type(description).__name__}")
    return description


def describe_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the dtype and the shape of each tensor as JSON-compatible data."""
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in sorted(tensors.items())
    }
