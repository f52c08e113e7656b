import sqlite3

import pytest

from vaegan.data.images import cache_table as cache_table
from vaegan.data.images.cache_table import CacheTable, Contents, Record, new_array
from vaegan.data.images.scanning import ImageFile

GOOD, BAD = Record(10, 5, b"digest", 0, ""), Record(3, -7, b"other", None, "the file is empty")


@pytest.fixture
def table(tmp_path):
    table = CacheTable(tmp_path / "table with ? and #.sqlite")
    table.create()
    yield table
    table.close()


def test_what_is_put_in_comes_out(table):
    assert table.read() is None
    contents = Contents("pixels-1", 1, {"a.png": GOOD})
    table.replace(contents)
    contents.num_rows = 2
    table.add(contents, {"b/\udcff\n\U0001f408.png": BAD})
    assert table.read() == Contents("pixels-1", 2, {"a.png": GOOD, "b/\udcff\n\U0001f408.png": BAD})
    table.replace(Contents("pixels-2", 0, {}))
    assert table.read() == Contents("pixels-2", 0, {})


def test_a_change_that_fails_changes_nothing(table):
    contents = Contents("pixels-1", 1, {"a.png": GOOD})
    table.replace(contents)
    with pytest.raises(OverflowError):
        table.replace(Contents("pixels-2", 0, {"b.png": GOOD._replace(mtime_ns=2**64)}))
    assert table.read() == contents


def test_another_pillow_gets_another_chance(table, monkeypatch):
    table.replace(Contents("pixels-1", 1, {"a.png": GOOD, "b.png": BAD}))
    monkeypatch.setattr(cache_table, "PILLOW_VERSION", "0.1")
    assert table.read() == Contents("pixels-1", 1, {"a.png": GOOD})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET array = '../../../home/important'",
        "UPDATE state SET array = '/etc/passwd'",
        "UPDATE state SET array = 3",
        "UPDATE state SET num_rows = -1",
        "UPDATE state SET num_rows = 'many'",
        "UPDATE files SET row = 1",
        "UPDATE files SET row = -1",
        "UPDATE files SET row = 'one'",
        "UPDATE files SET path = 3",
        "UPDATE files SET reason = char(27) || '[31m'",
        "UPDATE files SET digest = 'text'",
    ],
)
def test_a_table_that_somebody_else_wrote_counts_as_damaged(table, statement):
    table.replace(Contents("pixels-1", 1, {"a.png": GOOD}))
    with table.connection:
        table.connection.execute(statement)
    with pytest.raises(sqlite3.DatabaseError, match="names another file, or rows that cannot be"):
        table.read()


def test_reading_alone_makes_no_file(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        CacheTable(tmp_path / "none.sqlite", is_read_only=True).read()
    assert not list(tmp_path.iterdir())


def test_a_record_is_of_a_file_as_it_was():
    file = ImageFile("a.png", 10, 5)
    assert GOOD.is_of(file)
    assert not GOOD.is_of(file._replace(num_bytes=11)) and not GOOD.is_of(file._replace(mtime_ns=6))


def test_no_array_has_the_name_of_another():
    assert len({new_array() for _ in range(50)}) == 50
