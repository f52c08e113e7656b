import json

import pytest

from vaegan.data.images import cache_index
from vaegan.data.images.cache_index import CacheIndex, CacheRecord, new_array_name
from vaegan.data.images.decoding import ImageTraits
from vaegan.data.images.scanning import ImageFile

GOOD = CacheRecord(10, 5, b"digest", 0, "")
BROKEN = CacheRecord(3, -7, b"other", None, "the file is empty")
DEEP = CacheRecord(9, 8, b"deep", 0, "", ImageTraits(num_bits=12, is_stack=True))
INDEX = CacheIndex("pixels-1", 1, {"a.png": GOOD})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index with ? and #.json"


def test_write_then_read_returns_the_same_index(path):
    records = {"a.png": GOOD, "b/\udcff\n\U0001f408.png": BROKEN}
    for index in (CacheIndex("pixels-1", 2, records), CacheIndex("pixels-2")):
        index.write(path)
        assert CacheIndex.read(path) == index
        assert list(path.parent.iterdir()) == [path]


def test_extreme_modification_times_are_kept(path):
    index = CacheIndex("pixels-1", 1, {"a.png": GOOD._replace(mtime_ns=-(2**70))})
    index.write(path)
    assert CacheIndex.read(path) == index


def test_failed_write_keeps_the_old_index(path):
    INDEX.write(path)
    with pytest.raises(TypeError):
        CacheIndex("pixels-2", 1, {"b.png": GOOD._replace(num_bytes=object())}).write(path)
    assert CacheIndex.read(path) == INDEX and list(path.parent.iterdir()) == [path]


def test_broken_records_of_another_pillow_version_are_dropped(path, monkeypatch):
    CacheIndex("pixels-1", 1, {"a.png": GOOD, "b.png": BROKEN}).write(path)
    monkeypatch.setattr(cache_index, "PILLOW_VERSION", "0.1")
    assert CacheIndex.read(path) == INDEX


@pytest.mark.parametrize(
    "key, value",
    [
        ("array", "../../../home/important"),
        ("array", "/etc/passwd"),
        ("array", 3),
        ("num_rows", -1),
        ("num_rows", "many"),
        ("num_rows", 5.0),
        ("row", 0.5),
        ("row", 1),
        ("row", -1),
        ("row", "one"),
        ("path", 3),
        ("reason", "\x1b[31m"),
        ("reason", None),
        ("num_bits", "12"),
        ("digest", "text"),
        ("records", 3),
        ("records", [[]]),
    ],
)
def test_invalid_values_raise(path, key, value):
    INDEX.write(path)
    content = json.loads(path.read_text())
    fields = ("path", "num_bytes", "mtime_ns", "digest", "row", "reason", "num_bits")
    if key in content:
        content[key] = value
    else:
        content["records"][0][fields.index(key)] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged"):
        CacheIndex.read(path)


@pytest.mark.parametrize("content", [b"", b"no index" * 500, b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_other_content_raises(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        CacheIndex.read(path)


@pytest.mark.parametrize("key", ["array", "num_rows", "pillow", "records"])
def test_missing_key_raises(path, key):
    INDEX.write(path)
    content = json.loads(path.read_bytes())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged"):
        CacheIndex.read(path)


def test_truncated_index_raises(path):
    INDEX.write(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is damaged"):
            CacheIndex.read(path)


def test_reading_a_missing_index_does_not_create_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        CacheIndex.read(tmp_path / "none.json")
    assert not list(tmp_path.iterdir())


def test_record_matches_only_an_unchanged_file():
    file = ImageFile("a.png", 10, 5)
    assert GOOD.matches(file)
    assert not GOOD.matches(file._replace(num_bytes=11))
    assert not GOOD.matches(file._replace(mtime_ns=6))


def test_array_names_are_unique():
    assert len({new_array_name() for _ in range(50)}) == 50
