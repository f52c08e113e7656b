"""Tests of `resume=FOLDER`."""

import json

import pytest

from tests.conftest import CONF, SMALL_GAN, SMALL_PIPELINE, SMALL_VAE, compose
from vaegan.cli.hydra_app import with_absolute_config_path
from vaegan.cli.resume import expand_resume, to_overrides
from vaegan.config import to_plain
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.paths import quote_for_hydra
from vaegan.stages.stage_table import stage_of

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
COMMANDS = [
    SMALL_VAE,
    SMALL_PIPELINE,
    [*SMALL_GAN, "vae_ckpt=x"],
    ["dataset=image_folder", "dataset.root=a"],
]
NEED_ROOT = ("folder", "r3gan_64")
COMMANDS += [
    [f"experiment={name}", *(["dataset.root=a"] if name.startswith(NEED_ROOT) else [])]
    for name in EXPERIMENTS
    if name != "tune_gan"
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_overrides_of_a_config_compose_to_the_same_config(arguments):
    if "experiment=tune_vae" in arguments:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
    run = compose(*arguments)
    recomposed = compose(*to_overrides(stage_of(run), to_plain(run)))
    assert type(recomposed) is type(run) and to_plain(recomposed) == to_plain(run)


TEXTS = ["", "a b", "it's", "a\\'b", "ends in \\", "a,b=c:[d]{e}", "null"]


@pytest.mark.parametrize("text", TEXTS)
def test_quoted_text_keeps_its_value(text):
    assert compose("stage=vae", f"label={quote_for_hydra(text)}").label == text


@pytest.fixture
def run_folder(tmp_path):
    """Folder with the config.json of a stage=vae run."""
    write_json(
        tmp_path / "config.json",
        {"stage": "vae", "config": to_plain(compose(*SMALL_VAE, "seed=5"))},
    )
    return tmp_path


def test_other_overrides_take_precedence_over_the_saved_config(run_folder):
    arguments = expand_resume([f"resume={run_folder}", "seed=6", "likelihood=gaussian"])
    run = compose(*[word for word in arguments if not word.startswith("hydra")])
    assert (
        run.seed == 6 and run.likelihood.name == "gaussian" and run.latent_dim == 8 and run.resume
    )
    assert f"hydra.run.dir='{run_folder}'" in arguments


def test_resume_rejects_another_stage(run_folder):
    with pytest.raises(ValueError, match="contains a run of stage=vae; remove stage="):
        expand_resume([f"resume={run_folder}", "stage=gan"])
    arguments = expand_resume([f"resume={run_folder}", "stage=vae", "--cfg", "job"])
    assert arguments[-2:] == ["--cfg", "job"]


@pytest.mark.parametrize(
    "word",
    ["hydra.run.dir=other", "++hydra.run.dir=other", "hydra.run.dir='other'", "hydra.run.dir=~/x"]
    + ["hydra.run.dir=~nosuchuser/x", "hydra.run={dir:other}", "hydra={run:{dir:other}}"],
)
def test_resume_rejects_another_output_folder(word, run_folder):
    with pytest.raises(ValueError, match=r"in its own folder; remove .*copy the folder"):
        expand_resume([f"resume={run_folder}", word])


@pytest.mark.parametrize("path", ["{0}", "{0}/", "'{0}'", "{1}", "./{1}/", "~/{1}"])
def test_resume_accepts_its_own_output_folder(path, run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parent)
    monkeypatch.setenv("HOME", str(run_folder.parent))
    path = path.format(run_folder, run_folder.name)
    assert "resume=true" in expand_resume([f"resume={run_folder}", f"hydra.run.dir={path}"])


@pytest.mark.parametrize(
    "word", ["-m", "--multirun", "hydra.mode=MULTIRUN", "hydra.mode='MULTIRUN'"]
)
def test_resume_rejects_sweeps(word, run_folder):
    with pytest.raises(ValueError, match="resumes a single run; remove"):
        expand_resume([f"resume={run_folder}", word, "seed=0,1"])


def test_commands_without_a_resume_folder_are_not_changed():
    for words in (["hydra.run.dir=run", "resume=true"], ["stage=vae", "resume=false"]):
        assert expand_resume(words) == words


def test_resume_of_a_folder_that_is_missing_or_part_of_a_run(run_folder):
    with pytest.raises(ValueError, match=r"resume=.*nowhere does not exist"):
        expand_resume([f"resume={run_folder / 'nowhere'}"])
    checkpoints = run_folder / "vae" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    for folder in (checkpoints.parent, checkpoints):
        with pytest.raises(ValueError, match=f"is part of a run; use resume={run_folder}$"):
            expand_resume([f"resume={folder}"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read"),
        ("{}", "is damaged"),
        ({"stage": "vae", "config": {"_target_": "os.system"}}, "unknown key _target_"),
        (
            {"stage": "vae", "config": {"likelihood": {"name": "os.system"}}},
            "unknown likelihood 'os.system'",
        ),
        (
            {"stage": "vae", "config": {"encoder": {"name": "conv", "resampling": None}}},
            "got None; if an earlier version started this run, start a new one",
        ),
        ({"stage": "os.system", "config": {}}, "is damaged"),
    ],
)
def test_resume_rejects_an_invalid_config(tmp_path, content, message):
    (tmp_path / "config.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    with pytest.raises(ValueError, match=message):
        expand_resume([f"resume={tmp_path}"])


def test_resume_rejects_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="does not contain a run: config.json is missing"):
        expand_resume([f"resume={tmp_path}"])
    (tmp_path / "multirun.yaml").touch()
    with pytest.raises(
        ValueError, match="is the folder of a sweep. To resume the sweep, repeat its"
    ):
        expand_resume([f"resume={tmp_path}"])


def test_a_config_path_is_relative_to_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config-path", "conf", "-cp=a b", "--config-path=c", "seed=1"]
    expected = ["--config-path", f"{tmp_path}/conf", f"-cp={tmp_path}/a b"]
    expected += [f"--config-path={tmp_path}/c", "seed=1"]
    assert with_absolute_config_path(arguments) == expected
