import os

import pytest
from lightning.fabric.plugins.environments import MPIEnvironment

from vaegan.stages.evaluate import build_trainer
from vaegan.training.devices import cluster_environment, set_up_devices
from vaegan.training.trainer_config import DeviceConfig


@pytest.fixture
def no_mpi(monkeypatch):
    def detect():
        raise AssertionError("MPI is initialized")

    monkeypatch.setattr(MPIEnvironment, "detect", staticmethod(detect))


CONFIG = DeviceConfig(accelerator="cpu", enable_progress_bar=False)


def test_devices_are_checked_without_mpi(no_mpi):
    set_up_devices(CONFIG)


def test_evaluation_does_not_use_mpi(no_mpi):
    build_trainer(CONFIG, 0, False)


def test_processes_of_torchrun_are_detected(monkeypatch):
    assert type(cluster_environment()).__name__ == "LightningEnvironment"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name in ("RANK", "GROUP_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert type(cluster_environment()).__name__ == "TorchElasticEnvironment"


def test_steps_on_the_cpu_do_not_ask_the_driver_for_gpus(monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    set_up_devices(CONFIG)
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "0"
