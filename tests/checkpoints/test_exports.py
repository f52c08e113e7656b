"""Exports as safetensors and JSON: round trip, integrity checks, and malformed files."""

import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from vaegan.checkpoints.exports import MAX_JSON_BYTES, read_export, write_export

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}
DESCRIPTION = {"stage": "vae", "run": {"seed": 0, "lr": 0.1 + 0.2}}


@pytest.fixture
def exported(tmp_path):
    """Return the path of a small export."""
    (tmp_path / "export").mkdir()
    return write_export(tmp_path / "export", DESCRIPTION, TENSORS)


def change(path, **changes):
    """Change keys in the JSON file of an export."""
    path = path.with_name("config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip_of_tensors_and_description(exported):
    description, tensors = read_export(exported)
    assert DESCRIPTION.items() <= description.items()
    assert tensors.keys() == TENSORS.keys() and all(
        torch.equal(tensors[key], TENSORS[key]) for key in TENSORS
    )


def test_json_describes_the_safetensors_file(exported):
    description = json.loads(exported.with_name("config.json").read_text())
    assert description["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert description["tensors"] == {
        "a.count": {"dtype": "int64", "shape": []},
        "a.weight": {"dtype": "float32", "shape": [2, 3]},
    }
    assert torch.equal(load_file(exported)["a.weight"], TENSORS["a.weight"])


def test_shared_and_non_contiguous_tensors_are_written_as_contiguous_copies(tmp_path):
    base = torch.randn(2, 3, 4, 4)
    tensors = {
        "base": base,
        "alias": base,
        "slice": base[:, 1],
        "channels_last": base.to(memory_format=torch.channels_last),
    }
    _, loaded = read_export(write_export(tmp_path, {}, tensors))
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].is_contiguous()


def test_existing_export_is_not_overwritten(exported):
    before = exported.read_bytes()
    with pytest.raises(ValueError, match="already contains an export and will not be overwritten"):
        write_export(exported.parent, {}, {"b": torch.ones(1)})
    assert exported.read_bytes() == before
    exported.unlink()  # the JSON file alone also counts as an export
    with pytest.raises(ValueError, match="already contains an export"):
        write_export(exported.parent, {}, {})


@pytest.mark.parametrize("function_name", ["fsync", "replace"])
@pytest.mark.parametrize("num_successes", [0, 1])
def test_full_disk_leaves_no_partial_export(tmp_path, monkeypatch, function_name, num_successes):
    original, calls = getattr(os, function_name), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > num_successes:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(os, function_name, fail)
    with pytest.raises(
        ValueError, match=r"cannot be written \(No space left on device\); no files were kept"
    ):
        write_export(tmp_path, DESCRIPTION, TENSORS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("index", [0, 20, -1])
def test_flipped_bit_is_detected(exported, index):
    content = bytearray(exported.read_bytes())
    content[index] ^= 1
    exported.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model.safetensors is damaged or belongs to another export.*sha256"
    ):
        read_export(exported)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 64},
        {"sha256": None},
        {"tensors": {}},
        {"tensors": {"a": {"shape": [10**15]}}},
    ],
)
def test_description_of_other_tensors_is_rejected(exported, changes):
    change(exported, **changes)
    with pytest.raises(ValueError, match="is damaged or belongs to another export"):
        read_export(exported)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is damaged or not JSON"),
        (b"[" * 100_000, "is damaged or not JSON"),
        (b"\xff\xfe", "is damaged or not JSON"),
        (b"1" * 10_000, "is damaged or not JSON"),
        (b"[1]", "must contain a JSON object; got a list"),
        (b" " * (MAX_JSON_BYTES + 1), "is refused: it is larger than 16777216 bytes"),
    ],
)
def test_invalid_json_is_rejected(exported, content, message):
    exported.with_name("config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"config.json {message}"):
        read_export(exported)


def test_tensors_without_json_are_rejected(exported, tmp_path):
    alone = shutil.copytree(exported.parent, tmp_path / "alone") / exported.name
    alone.with_name("config.json").unlink()
    with pytest.raises(
        ValueError, match="config.json cannot be read .*an export consists of two files, copy both"
    ):
        read_export(alone)


def with_length(length, content):
    """Return a safetensors header with a given length field."""
    return length.to_bytes(8, "little") + content


def tensor(begin, end, shape=(1,)):
    """Return the header entry of a tensor."""
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def pack(header, data=b"\0" * 8):
    """Return the content of a safetensors file."""
    text = json.dumps(header).encode()
    return with_length(len(text), text) + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02cos\nsystem\n",
        with_length(2**63 - 1, b"{}"),
        with_length(10**8, b"{}"),
        with_length(8, b"not json"),
        pack({"a": tensor(-4, 4)}),
        pack({"a": tensor(0, 4), "b": tensor(0, 4)}),
        pack({"a": tensor(0, 8), "b": tensor(4, 8)}),
        pack({"a": tensor(4, 8)}),
        pack({"a": tensor(0, 8, (10**9, 10**9))}),
        pack({"a": tensor(0, 2**62, (2**60,))}),
        pack({"a": tensor(0, 8, (2,)) | {"dtype": "os.system"}}),
    ],
)
def test_malformed_header_with_a_valid_checksum_is_rejected(exported, content):
    exported.write_bytes(content)
    change(exported, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="model.safetensors is damaged or not a safetensors file"):
        read_export(exported)
