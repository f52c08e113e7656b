import multiprocessing
import pickle

import pytest

from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.scanning import SkippedFile

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_too_many_broken_files_raise():
    broken_files = BrokenFileLimit(10, 0.2, fail_fast=False)
    broken_files.skip(SkippedFile("a", "bad"))
    broken_files.skip(SkippedFile("b\n", "bad"))
    with pytest.raises(
        ValueError, match=r"3 of 10 files cannot be used, .*max_broken=0\.2 allows; .*'c': worse"
    ):
        broken_files.skip(SkippedFile("c", "worse"))
    with pytest.raises(ValueError, match=r"'a': bad \(set dataset\.on_error=skip"):
        BrokenFileLimit(10, 1.0, fail_fast=True).skip(SkippedFile("a", "bad"))


def test_repeated_reports_of_a_file_count_once():
    broken_files = BrokenFileLimit(4, 0.5, False)
    for _ in range(9):
        broken_files.skip(SkippedFile("a.png", "empty"))
    assert broken_files.skipped == [("a.png", "empty")]


def in_other_process(function, *arguments):
    """Call a function in a forked process, and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_files_skipped_in_other_processes_are_listed():
    broken_files = BrokenFileLimit(10, 1.0, False)
    first, second, third = (SkippedFile(f"{name}.png", "bad\n") for name in ("ä", "b\udcff", "c"))
    broken_files.skip(first)
    assert in_other_process(broken_files.skip, second) == 0
    copy = pickle.loads(pickle.dumps(broken_files))  # as in spawned processes
    copy.skip(first)
    copy.skip(third)
    assert sorted(broken_files.skipped) == sorted(copy.skipped) == sorted([first, second, third])


def test_limit_counts_the_files_of_all_processes():
    broken_files = BrokenFileLimit(10, 0.2, False)
    for name in ("a", "b"):
        assert in_other_process(broken_files.skip, SkippedFile(name, "bad")) == 0
    with pytest.raises(ValueError, match="3 of 10 files cannot be used"):
        broken_files.skip(SkippedFile("c", "bad"))
