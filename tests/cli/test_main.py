import os

import pytest
import torch

from vaegan.cli import main
from vaegan.stages.training_runs import PipelineRun


@pytest.mark.parametrize("given, expected", [(None, "passive"), ("active", "active")])
def test_waiting_threads_leave_the_cores_to_other_processes(monkeypatch, given, expected):
    monkeypatch.setattr(main, "run_command", lambda words: None)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    main.main()
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_process_that_starts_workers_does_not_initialize_cuda(train, monkeypatch):
    def initialize():
        raise AssertionError("CUDA is initialized")

    started = []
    monkeypatch.setattr("vaegan.runtime.launch.has_computed", False)
    monkeypatch.setattr("vaegan.runtime.launch.supervise", lambda *args: started.append(args[1]))
    monkeypatch.setattr(torch.cuda, "_lazy_init", initialize)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    exit_code, out, err = train("stage=vae", "trainer.devices=2", "dataset=shapes")
    assert started == [2], (exit_code, out, err)


def test_without_words_the_pipeline_is_trained_on_mnist(train, monkeypatch):
    started = []
    monkeypatch.setattr("vaegan.cli.hydra_app.execute", lambda run, folder: started.append(run))
    exit_code, out, err = train()
    assert exit_code is None, (exit_code, out, err)
    (run,) = started
    assert isinstance(run, PipelineRun) and run.dataset.name == "mnist"
