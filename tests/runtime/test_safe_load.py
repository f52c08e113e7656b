"""Malicious files for torch.load: each is refused, executes nothing and allocates no memory."""

import builtins
import os
import pickle
import tarfile
import zipfile

import pytest
import torch

from vaegan.runtime.safe_load import load_archive


class Call:
    """Object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def malicious_calls(marker):
    """Return calls that would create the file `marker`, or allocate a terabyte."""
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "eval": Call(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(builtins.exec, f"open({str(marker)!r}, 'w')"),
        "getattr": Call(builtins.getattr, Call(builtins.__import__, "os"), "system"),
        "rebuild": Call(
            torch._tensor._rebuild_from_type_v2, os.system, object, (f"touch {marker}",), {}
        ),
        "wrapper": Call(
            torch._utils._rebuild_wrapper_subclass,
            os.system,
            torch.float,
            (1,),
            (1,),
            0,
            0,
            "cpu",
            False,
        ),
        "memory": Call(bytearray, 2**40),
    }


@pytest.fixture(params=[False, True], ids=["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"], autouse=True)
def environment(request, monkeypatch):
    if request.param:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", malicious_calls(""))
def test_malicious_pickle_is_refused(tmp_path, name, new_format):
    path, marker = tmp_path / "bad.ckpt", tmp_path / "executed"
    content = {"state_dict": {"a": torch.ones(2)}, "x": malicious_calls(marker)[name]}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=r"bad.ckpt is refused: .*Nothing in it was executed"):
        load_archive(path)
    assert not marker.exists()


def test_error_names_the_referenced_function(tmp_path):
    torch.save(Call(os.system, "true"), tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"it references '(posix|nt) system'"):
        load_archive(tmp_path / "bad.ckpt")


def test_legacy_tar_file_is_refused(tmp_path):
    path, marker = tmp_path / "old.ckpt", tmp_path / "executed"
    for name in ("pickle", "sys_info", "storages", "tensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Call(os.system, f"touch {marker}")))
    with tarfile.open(path, "w") as archive:
        for name in ("pickle", "sys_info", "storages", "tensors"):
            archive.add(tmp_path / name, name)
    with pytest.raises(
        ValueError, match="old.ckpt is refused: it is truncated, damaged or not a checkpoint"
    ):
        load_archive(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_torchscript_is_refused_without_advice_to_load_it_unsafely(tmp_path):
    torch.jit.save(
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "script.ckpt")
    )
    with pytest.raises(
        ValueError, match="script.ckpt is refused: .*Nothing in it was executed"
    ) as error:
        load_archive(tmp_path / "script.ckpt")
    assert "weights_only" not in str(error.value)


def repack(path, change, compression=zipfile.ZIP_STORED):
    """Rewrite an archive with changed records; return its path."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))
    return path


def test_decompression_bomb_is_refused(tmp_path):
    torch.save(torch.zeros(2_000_000), tmp_path / "bomb.ckpt")
    bomb = repack(tmp_path / "bomb.ckpt", lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(
        ValueError, match="bomb.ckpt is refused: .*it decompresses to more than its own size"
    ):
        load_archive(bomb)


def test_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save(torch.zeros(4), tmp_path / "huge.ckpt")

    def change(name, content):
        if not name.endswith("data.pkl"):
            return content
        position = content.index(b"K\x04", content.index(b"cpu"))  # 4 numbers
        return (
            content[:position]
            + b"\x8a\x06"
            + (2**40).to_bytes(6, "little")
            + content[position + 2 :]
        )

    with pytest.raises(
        ValueError, match=r"huge.ckpt is truncated or damaged \(record size \(16 bytes\)"
    ):
        load_archive(repack(tmp_path / "huge.ckpt", change))


def test_plain_checkpoint_content_is_loaded(tmp_path):
    content = {
        "state": {
            "a": torch.arange(3),
            "b": torch.ones(2, dtype=torch.bfloat16),
            "c": torch.tensor([True]),
        },
        "optimizer": [
            {"step": torch.tensor(1.0), "betas": (0.5, 0.9), "none": None, "name": "\x1b"}
        ],
    }
    torch.save(content, tmp_path / "good.ckpt")
    found = load_archive(tmp_path / "good.ckpt")
    assert found["optimizer"] == content["optimizer"]
    assert all(torch.equal(value, found["state"][key]) for key, value in content["state"].items())
