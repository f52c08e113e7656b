"""README and docs against the code: links, names, words, and every Python block and command."""

import ast
import importlib.util
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import words
from tests.conftest import TRAIN
from tests.stages.test_stages import TRAIN_TAGS, VAL_TAGS
from vaegan.config import GROUPS
from vaegan.metrics.metric_table import METRICS
from vaegan.probability.likelihoods.likelihood import Likelihood

ROOT = TRAIN.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
MAX_README_LINES = 180


def headings(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_anchors_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file.read_text(encoding="utf-8")), target


def test_every_page_is_linked_from_the_index_and_the_readme_is_short():
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "index.md" or f"({path.name})" in TEXTS["docs/index.md"], path.name
    assert len(TEXTS["README.md"].splitlines()) <= MAX_README_LINES


def test_images_are_shown_and_small():
    shown = {
        ((ROOT / page).parent / target).resolve()
        for page, text in TEXTS.items()
        for target in re.findall(r"!\[.*?\]\((.*?)\)", text)
    }
    assert shown == {path.resolve() for path in (ROOT / "docs").glob("*.png")}
    assert all(path.stat().st_size < 100_000 for path in shown)


@pytest.mark.parametrize("page", TEXTS)
def test_dotted_names_of_the_package_exist(page):
    for name in re.findall(r"`(vaegan(?:\.\w+)+)`", TEXTS[page]):
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            for part in parts[length:]:
                assert hasattr(found, part), name
                found = getattr(found, part)
            break


@pytest.mark.parametrize("page", TEXTS)
def test_math_renders_on_github(page):
    """GitHub rejects some macros, and drops a backslash before punctuation in inline math."""
    assert "\\operatorname" not in TEXTS[page]
    text = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    assert all(line.count("$") % 2 == 0 for line in text.splitlines())
    for formula in re.findall(r"\$([^$\n]+)\$", text):
        assert not re.search(r"\\[^\w\s|]", formula), formula


def test_math_names_the_class_of_every_component():
    page = TEXTS["docs/math.md"]
    groups = ("likelihood", "prior", "posterior", "adversarial_loss", "gradient_penalty")
    for group in groups:
        for name, component in GROUPS[group].choices.items():
            if component.__module__.startswith("vaegan.") and name != "none":
                assert f"`{component.__module__}.{component.__qualname__}`" in page, name


def test_choices_named_in_the_readme_exist():
    """The reverse is not required: a new choice must not break a test."""
    rows = re.findall(r"^\| (`.*?) \| (`.*) \|$", TEXTS["README.md"], re.MULTILINE)
    checked = 0
    for groups, cell in rows:
        for group in re.findall(r"`(\w+)`", groups):
            for name in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cell)):
                assert name in GROUPS[group].choices, f"{group}={name}"
                checked += 1
    assert checked > 40


def test_every_tag_and_metric_is_explained():
    page = TEXTS["docs/outputs.md"]
    for tags, split in ((TRAIN_TAGS, "train"), (VAL_TAGS, "val")):
        for tag in {tag for stage in tags.values() for tag in stage}:
            assert re.search(rf"`(\{{[\w,]*)?{split}[\w,]*\}}?/{tag}`", page), tag
    for name in METRICS:
        assert re.search(rf"\b{name}\b", page + TEXTS["docs/evaluating-a-vae.md"]), name


PYTHON_BLOCKS = [
    (page, code)
    for page, text in TEXTS.items()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


@pytest.mark.parametrize("page, code", PYTHON_BLOCKS, ids=[page for page, _ in PYTHON_BLOCKS])
def test_python_blocks_parse_and_import_what_exists(page, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("vaegan"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), alias.name


def test_the_python_example_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["README.md"], re.DOTALL)
    names = {}
    exec(code, names)
    assert names["terms"].value.shape == (8,) and names["images"].shape == (16, 1, 28, 28)


def test_the_likelihood_of_the_docs_works_as_a_file(tmp_path):
    (code,) = [code for _, code in PYTHON_BLOCKS if "class StudentT" in code]
    path = tmp_path / "student_t.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("student_t", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        likelihood = Likelihood.choices["student_t"].Config().build((1, 4, 4))
        x = torch.rand(2, 1, 4, 4)
        location = torch.full_like(x, 0.5)
        expected = torch.distributions.StudentT(5.0, location, 0.1).log_prob(x).sum((1, 2, 3))
        torch.testing.assert_close(likelihood(torch.zeros_like(x)).log_prob(x), expected)
    finally:
        Likelihood.choices.pop("student_t", None)


def test_words_are_plain_and_american():
    assert words.riddle_openings(ROOT) == []
    assert words.flagged_words(ROOT) == []


def test_the_word_check_finds_what_it_looks_for(tmp_path):
    (tmp_path / "vaegan").mkdir()
    (tmp_path / "vaegan" / "a.py").write_text('"""Whether it shall initialise."""\n')
    (tmp_path / "README.md").write_text("It begins anew.\n")
    assert len(words.riddle_openings(tmp_path)) == 1
    assert len(words.flagged_words(tmp_path)) == 3
    command = [sys.executable, "-m", "benchmarks.words"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "flagged words" in ended.stdout and ended.returncode == 0
