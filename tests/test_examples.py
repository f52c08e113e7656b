"""The notebooks in examples/: their code runs in a shortened form, and their outputs are stored."""

import json

import matplotlib
import pytest
from hydra.core.global_hydra import GlobalHydra
from matplotlib import pyplot as plt

from tests.conftest import TRAIN
from vaegan.data.dataset import Split
from vaegan.data.mnist import Mnist
from vaegan.probability.likelihoods.likelihood import Likelihood

FOLDER = TRAIN.parent / "examples"
MAX_BYTES = 300_000
SHORT = {  # values for the parameters cell
    "digits_in_five_minutes": {"FRACTION": 0.2, "WIDTH": 2, "HIDDEN_DIM": 16},
    "your_own_images": {"NUM_DRAWINGS": 100, "VAE_EPOCHS": 1, "GAN_EPOCHS": 1},
    "your_own_noise_model": {"FRACTION": 0.2, "BUILT_IN": [], "WIDTH": 2},
}


def read_cells(name):
    """Return the code cells of a notebook."""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def few_digits(monkeypatch):
    """Shorten the splits of MNIST."""
    original = Mnist.split

    def split(self, name):
        images, labels, _ = original(self, name)
        return Split(images[:1000], labels[:1000])

    monkeypatch.setattr(Mnist, "split", split)


def is_parameters(cell):
    return "parameters" in cell["metadata"].get("tags", [])


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == SHORT.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_notebooks_run(name, tmp_path, monkeypatch, few_digits):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Likelihood, "choices", dict(Likelihood.choices))
    matplotlib.use("agg")
    GlobalHydra.instance().clear()
    names = {"__name__": "notebook"}
    for cell in read_cells(name):
        exec("".join(cell["source"]), names)
        if is_parameters(cell):
            assert SHORT[name].keys() <= names.keys()
            names |= SHORT[name]
    assert plt.get_fignums()
    plt.close("all")


@pytest.mark.parametrize("name", SHORT)
def test_outputs_are_stored(name):
    path = FOLDER / f"{name}.ipynb"
    cells = read_cells(name)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not any(output["output_type"] == "error" for output in outputs)
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("name", SHORT)
def test_notebooks_name_no_folder_of_a_machine(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not any(folder in text for folder in ("/home/", "/root/", "/tmp/", "/Users/"))
