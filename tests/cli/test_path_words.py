"""Paths as users type them: Hydra reads them unchanged, and printed commands run as printed."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import compose
from vaegan.cli.path_words import PATH_KEYS, quote_paths, read_path
from vaegan.runtime.paths import path_override

PATHS = [
    *("~/images", "/data/Übung", "/data/新加卷2", "runs/lr=0.1", "runs/lr=0.1 (a)", "photos(1)"),
    *("a#b", "R&D", "it's", 'the "best"', "Smith, John", "photos [old]", "[old]", "{a}", "a;b"),
    *("a!b", "a^b", "`a`", "<a>", "100%", "a@b", "a b", " a", "a  ", "a:b", "a+b", "-a", "$HOME"),
    *("2026_01_31", "1e3", "1.10", "007", "Ünï/ä=ö", "😀", "a\tb", "x'y\"z", "a = b", "sort(a"),
]


def read(word):
    """Return the value that Hydra reads, as a string."""
    return str(OverridesParser.create().parse_override(word).value())


@pytest.mark.parametrize("path", PATHS)
def test_hydra_reads_a_typed_path_unchanged(path):
    for key in PATH_KEYS:
        (word,) = quote_paths([f"{key}={path}"])
        if key != "runs":
            assert read(word) == path
            assert read_path(word) == path


@pytest.mark.parametrize(
    "word",
    [
        *("seed=1", "label=a(b", "stage=vae", "--help", "~prior", "dataset=a,b", "resume=true"),
        *("dataset.cache=null", "dataset.cache=auto", "ckpt=", "ckpt='a=b'", 'ckpt="a,b"'),
        *("dataset.root=s3://bucket/folder", "hydra.run.dir=runs/${now:%Y}/${seed}", "ckpt=a\\,b"),
        *("vae_ckpt=choice(a,b)", "vae_ckpt=glob(*)", "runs=[a,b]", "runs=['a,b',c]"),
    ],
)
def test_other_words_are_not_changed(word):
    assert quote_paths([word]) == [word]


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("vae_ckpt=a,b", "vae_ckpt=a,b"),
        ("vae_ckpt=~/a,~/b", "vae_ckpt='~/a','~/b'"),
        ("vae_ckpt=lr=1,'x,y',choice", "vae_ckpt='lr=1','x,y',choice"),
        ("vae_ckpt=choice(a,b)", "vae_ckpt=choice(a,b)"),
        ("runs=[a,b],[c]", "runs=[a,b],[c]"),
    ],
)
@pytest.mark.parametrize("option", ["-m", "--multirun", "hydra.mode=MULTIRUN", "experiment=tune"])
def test_commas_separate_the_values_of_a_sweep(typed, expected, option):
    assert quote_paths([option, typed])[1] == expected


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("outputs", ["outputs"]),
        ("outputs/*", ["outputs/*"]),
        ("a,b", ["a", "b"]),
        ("[~/a,lr=1/gan]", ["~/a", "lr=1/gan"]),
        ("[a (1), 2026_01]", ["a (1)", "2026_01"]),
        ("['a,b',c]", ["a,b", "c"]),
    ],
)
def test_runs_may_be_one_folder_or_a_list(typed, expected):
    assert compose("stage=compare", *quote_paths([f"runs={typed}"])).runs == expected


@pytest.mark.parametrize("name", [*PATHS, "a\\(b", "ends\\", "'a'"])
def test_a_printed_path_is_read_unchanged_by_the_shell_and_hydra(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (word,) = shlex.split(path_override("ckpt", Path("/data") / name / "vae"))
    assert Path(read(quote_paths([word])[0])) == Path("/data") / name / "vae"
    (word,) = shlex.split(path_override("resume", tmp_path / name))
    assert read_path(quote_paths([word])[0]) == name.removesuffix("/")
