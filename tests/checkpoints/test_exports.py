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
    (tmp_path / "export").mkdir()
    return write_export(tmp_path / "export", DESCRIPTION, TENSORS)


def change(path, **changes):
    """Alter the JSON beside an export."""
    path = path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_tensors_and_description_come_back_as_they_were(exported):
    description, tensors = read_export(exported)
    assert DESCRIPTION.items() <= description.items()
    assert tensors.keys() == TENSORS.keys() and all(
        torch.equal(tensors[key], TENSORS[key]) for key in TENSORS
    )


def test_other_programs_find_what_the_json_says(exported):
    said = json.loads(exported.with_suffix(".json").read_text())
    assert said["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert said["tensors"] == {
        "a.count": {"dtype": "int64", "shape": []},
        "a.weight": {"dtype": "float32", "shape": [2, 3]},
    }
    assert torch.equal(load_file(exported)["a.weight"], TENSORS["a.weight"])


def test_shared_memory_and_other_layouts_are_written_as_plain_tensors(tmp_path):
    base = torch.randn(2, 3, 4, 4)
    tensors = {
        "one": base,
        "same": base,
        "part": base[:, 1],
        "last": base.to(memory_format=torch.channels_last),
    }
    _, found = read_export(write_export(tmp_path, {}, tensors))
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].is_contiguous()


def test_an_export_is_never_overwritten(exported):
    before = exported.read_bytes()
    with pytest.raises(ValueError, match="already contains an export and will not be overwritten"):
        write_export(exported.parent, {}, {"b": torch.ones(1)})
    assert exported.read_bytes() == before
    exported.unlink()
    with pytest.raises(
        ValueError, match="already contains an export"
    ):  # a JSON without its tensors
        write_export(exported.parent, {}, {})


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_leaves_no_half_export(tmp_path, monkeypatch, fails, after):
    real, calls = getattr(os, fails), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(
        ValueError, match=r"cannot be written \(No space left on device\); nothing of it is kept"
    ):
        write_export(tmp_path, DESCRIPTION, TENSORS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_flipped_bit_is_noticed(exported, place):
    content = bytearray(exported.read_bytes())
    content[place] ^= 1
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
def test_a_description_of_other_tensors_is_refused(exported, changes):
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
        (b"[1]", "must hold a JSON object; got a list"),
        (b" " * (MAX_JSON_BYTES + 1), "is refused: it has more than 16777216 bytes"),
    ],
)
def test_a_json_that_is_none_is_refused(exported, content, message):
    exported.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match=f"model.json {message}"):
        read_export(exported)


def test_tensors_alone_are_no_export(exported, tmp_path):
    alone = shutil.copytree(exported.parent, tmp_path / "alone") / exported.name
    alone.with_suffix(".json").unlink()
    with pytest.raises(
        ValueError, match="model.json cannot be read .*an export is two files, copy both"
    ):
        read_export(alone)


def header_of(length, content):
    return length.to_bytes(8, "little") + content


def tensor(begin, end, shape=(1,)):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


def packed(header, data=b"\0" * 8):
    text = json.dumps(header).encode()
    return header_of(len(text), text) + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02cos\nsystem\n",
        header_of(2**63 - 1, b"{}"),
        header_of(10**8, b"{}"),
        header_of(8, b"not json"),
        packed({"a": tensor(-4, 4)}),
        packed({"a": tensor(0, 4), "b": tensor(0, 4)}),
        packed({"a": tensor(0, 8), "b": tensor(4, 8)}),
        packed({"a": tensor(4, 8)}),
        packed({"a": tensor(0, 8, (10**9, 10**9))}),
        packed({"a": tensor(0, 2**62, (2**60,))}),
        packed({"a": tensor(0, 8, (2,)) | {"dtype": "os.system"}}),
    ],
)
def test_a_wrong_header_is_refused_though_its_checksum_is_right(exported, content):
    exported.write_bytes(content)
    change(exported, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="model.safetensors is damaged or not a safetensors file"):
        read_export(exported)
