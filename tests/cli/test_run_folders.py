"""Run folders: a refused command changes nothing, and every command gets a folder of its own."""

import hashlib

import hydra
import pytest
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra

from tests.conftest import CONF, SMALL_VAE, compose, register_once
from vaegan.cli import reservation
from vaegan.cli.run_callbacks import CheckRun
from vaegan.config import to_plain
from vaegan.runtime.atomic_files import write_json

IMAGES = ["stage=vae", "dataset=image_folder", "dataset.root=images"]


def content(folder):
    """Return the SHA-256 of every file in a folder, by path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def finished(tmp_path):
    """Folder of a finished run on images that do not exist any more."""
    folder = tmp_path / "run"
    config = to_plain(compose(*IMAGES))
    versions = {"torch": "2.0"}
    (folder / ".hydra").mkdir(parents=True)
    write_json(folder / "config.json", {"stage": "vae", "config": config, "versions": versions})
    for path in ("train.log", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"):
        (folder / path).write_text("of the finished run\n")
    (folder / "vae").mkdir()
    (folder / "vae" / "metrics.csv").write_text("step\n")
    (folder / "evaluate").mkdir()
    (folder / "evaluate" / "evaluation.json").write_text("{}\n")
    return folder


REFUSED = [
    (IMAGES, "already contains a run"),
    (["stage=vae", "dataset=mnist", "seed=7", "likelihood=gaussian"], "already contains a run"),
    ([*IMAGES, "resume=true", "seed=7"], "seed=7"),
    ([*IMAGES, "resume=true"], "images is not a folder"),
    (["stage=vae", "latent_dmi=3"], "unknown key latent_dmi"),
    (["stage=vae", "latent_dim=0"], "latent_dim must be at least 1"),
    (["stage=gan", "vae_ckpt=/no/such"], "already contains a run"),
    (["stage=evaluate", "ckpt=/no/such"], "ckpt=/no/such does not exist"),
    (["stage=export", "ckpt=/no/such"], "ckpt=/no/such does not exist"),
    (["stage=compare", "runs=nowhere"], "nowhere"),
    (["stage=vae", "trainer=gpu"], "trainer"),
]


@pytest.mark.parametrize("words, message", REFUSED)
def test_a_refused_command_leaves_a_finished_run_untouched(train, finished, words, message):
    before = content(finished)
    exit_code, _, _ = train(*words, "hydra.run.dir=run")
    assert message in exit_code
    assert content(finished) == before


@pytest.mark.parametrize(
    "words, message",
    [case for case in REFUSED if case[1] not in ("already contains a run", "seed=7")],
)
@pytest.mark.parametrize("folder", [[], ["hydra.run.dir=a/b"]])
def test_a_refused_command_leaves_no_folder(train, tmp_path, words, message, folder):
    exit_code, _, _ = train(*words, *folder)
    assert exit_code != 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [[], ["hydra.run.dir=runs/${now:%H}"]])
def test_resume_true_needs_a_folder_that_is_not_new(train, tmp_path, folder):
    exit_code, _, _ = train("stage=vae", "dataset=shapes", "resume=true", *folder)
    assert "add hydra.run.dir=FOLDER, or use resume=FOLDER" in exit_code
    assert not list(tmp_path.iterdir())


def test_a_refused_command_leaves_a_running_run_untouched(train, tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("of the running run\n")
    with FileLock(tmp_path / "run" / ".lock"):
        before = content(tmp_path)
        exit_code, _, _ = train("stage=vae", "dataset=shapes", "hydra.run.dir=run")
        assert "another run is writing to" in exit_code
        sweep = ["-m", "stage=vae", "dataset=shapes", "hydra.sweep.dir=.", "hydra.sweep.subdir=run"]
        exit_code, _, _ = train(*sweep)
        assert "another run is writing to" in exit_code
        assert content(tmp_path) == before


def test_files_of_the_user_in_a_refused_run_folder_stay(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(*IMAGES, "hydra.run.dir=run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "notes.txt"]


def test_empty_folders_of_the_user_stay_after_a_refused_command(train, tmp_path):
    (tmp_path / "sample").mkdir()
    train("stage=runs", "folder=nowhere")
    train("stage=sample", "ckpt=nowhere", "hydra.run.dir=.")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_a_refused_sweep_leaves_no_folder(train, tmp_path):
    exit_code, _, _ = train("-m", "stage=vae", "latent_dim=4,0")
    assert "latent_dim must be at least 1" in exit_code and not list(tmp_path.iterdir())


def test_commands_of_the_same_second_get_folders_of_their_own(train, tmp_path, vae_result):
    for _ in range(3):
        folder = "hydra.run.dir=out/${now:%Y}"  # the same for a year
        exit_code, _, _ = train("stage=export", f"ckpt={vae_result[0]}", folder)
        assert exit_code is None
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name[4:] for name in names] == ["", "_2", "_3"]
    assert all((tmp_path / "out" / name / "export").is_dir() for name in names)


def test_a_taken_folder_is_never_shared(tmp_path):
    folders = {reservation.create_new_folder(tmp_path / "a" / "run") for _ in range(4)}
    assert sorted(path.name for path in folders) == ["run", "run_2", "run_3", "run_4"]


def test_home_folder_in_a_run_folder(train, tmp_path, monkeypatch, vae_result):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    exit_code, _, _ = train("stage=export", f"ckpt={vae_result[0]}", "hydra.run.dir=~/lr=0.1 (a)")
    assert exit_code is None
    assert (tmp_path / "home" / "lr=0.1 (a)" / "export").is_dir()
    assert not (tmp_path / "~").exists()


def test_another_stage_in_a_run_folder_keeps_the_settings_of_the_run(train, finished, vae_result):
    before = content(finished / ".hydra")
    train("stage=export", f"ckpt={vae_result[0]}", "hydra.run.dir=run")
    assert (finished / "export").is_dir()
    assert before.items() <= content(finished / ".hydra").items()


FARM = {
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS_PER_NODE": "4",
}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize("variables", [FARM, TORCHRUN, FARM | TORCHRUN])
def test_independent_tasks_write_where_they_are_told(
    train, tmp_path, monkeypatch, vae_result, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    exit_code, _, _ = train("stage=export", f"ckpt={vae_result[0]}", "hydra.run.dir=run1")
    assert exit_code is None
    assert [path.name for path in tmp_path.iterdir()] == ["run1"]
    assert (tmp_path / "run1" / "export" / "config.json").is_file()


@pytest.mark.parametrize("devices, rank, folder", [(1, 1, "run1"), (2, 0, "run1"), (2, 1, ".")])
def test_only_the_first_process_of_a_distributed_run_writes_the_files_of_hydra(
    tmp_path, monkeypatch, devices, rank, folder
):
    monkeypatch.chdir(tmp_path)
    for name, value in (TORCHRUN | {"RANK": str(rank), "LOCAL_RANK": str(rank)}).items():
        monkeypatch.setenv(name, value)
    register_once()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        words = [*SMALL_VAE, f"trainer.devices={devices}", "hydra.run.dir=run1"]
        config = hydra.compose("config", words, return_hydra_config=True)
    with reservation.ending_reservation():
        CheckRun().on_run_start(config)
    is_first = folder != "."
    assert config.hydra.run.dir == (str(tmp_path / folder) if is_first else ".")
    assert (config.hydra.output_subdir is None) is not is_first
    assert (config.hydra.job_logging["root"] is None) is not is_first
