import gzip
import hashlib

import numpy as np
import pytest
import torch

from vaegan.data.idx import read_idx

CONTENT = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + bytes(range(24))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(CONTENT))
    return path


def test_content_equals_numpy(path):
    expected = np.frombuffer(CONTENT, np.uint8, offset=16).reshape(2, 3, 4)
    assert torch.equal(read_idx(path), torch.tensor(expected))
    assert read_idx(path, hashlib.sha256(CONTENT).hexdigest()).dtype == torch.uint8


def test_uncompressed_files_are_read(tmp_path):
    (tmp_path / "images").write_bytes(CONTENT)
    assert read_idx(tmp_path / "images").shape == (2, 3, 4)


def test_wrong_checksum_raises(path):
    with pytest.raises(ValueError, match="images.gz is damaged: the SHA-256 of its content is not"):
        read_idx(path, "0" * 64)


@pytest.mark.parametrize("keep", [0, 3, 20, 40])
def test_truncated_gzip_raises(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="images.gz"):
        read_idx(path)


def test_flipped_bit_raises(path):
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_idx(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", CONTENT[:-1], CONTENT + b"x", b"\0\0\x0d" + CONTENT[3:], CONTENT[:5]],
)
def test_other_content_raises(tmp_path, content):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ValueError, match="not an IDX file of unsigned bytes"):
        read_idx(tmp_path / "images")


def test_missing_file_or_folder_raises(tmp_path):
    for path in (tmp_path / "none.gz", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            read_idx(path)
