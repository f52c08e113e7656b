"""Stage evaluate with an untrained model."""

import pytest
import torch

from tests.conftest import SMALL_DATA, compose
from tests.untrained import make_run, save_vae
from vaegan.stages.stage_table import run_stage
from vaegan.vae.evaluation_module import EvaluationModule


def test_lack_of_memory_is_explained(tmp_path, monkeypatch):
    def test_step(self, batch, index):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(EvaluationModule, "test_step", test_step)
    path = save_vae(tmp_path / "vae.ckpt", make_run())
    run = compose(
        "stage=evaluate",
        f"ckpt={path}",
        *SMALL_DATA,
        "num_draws=0",
        "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
    )
    expected = r"out of memory: CUDA .*\nTry batch_size=50 \(now 100\), .*chunk_size=50 "
    with pytest.raises(ValueError, match=expected):
        run_stage(run, tmp_path / "run")
