"""resume=FOLDER, written out."""

import json

import pytest

from tests.conftest import CONF, SMALL_GAN, SMALL_PIPELINE, SMALL_VAE, compose
from vaegan.cli.main import with_absolute_config_path
from vaegan.cli.resume import expand_resume, overrides, quote, with_rank_overrides
from vaegan.config import to_plain
from vaegan.runtime.atomic_files import write_json
from vaegan.stages.stage_table import stage_of

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
COMMANDS = [
    SMALL_VAE,
    SMALL_PIPELINE,
    [*SMALL_GAN, "vae_ckpt=x"],
    ["dataset=image_folder", "dataset.root=a"],
]
COMMANDS += [
    [f"experiment={name}", "dataset.root=a"] for name in EXPERIMENTS if name.startswith("folder")
]
COMMANDS += [
    [f"experiment={name}"]
    for name in EXPERIMENTS
    if not name.startswith("folder") and name != "tune_gan"
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_config_becomes_words_that_compose_to_it(words):
    run = compose(*words)
    again = compose(*overrides(stage_of(run), to_plain(run)))
    assert type(again) is type(run) and to_plain(again) == to_plain(run)


TEXTS = ["", "a b", "it's", "a\\'b", "ends in \\", "a,b=c:[d]{e}", "null"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_can_be_written(text):
    assert compose("stage=vae", f"label={quote(text)}").label == text


@pytest.fixture
def begun(tmp_path):
    write_json(
        tmp_path / "config.json",
        {"stage": "vae", "config": to_plain(compose(*SMALL_VAE, "seed=5"))},
    )
    return tmp_path


def test_what_is_given_beside_it_takes_precedence(begun):
    words = expand_resume([f"resume={begun}", "seed=6", "likelihood=gaussian"])
    run = compose(*[word for word in words if not word.startswith("hydra")])
    assert (
        run.seed == 6 and run.likelihood.name == "gaussian" and run.latent_dim == 8 and run.resume
    )
    assert f"hydra.run.dir='{begun}'" in words


def test_another_stage_is_refused(begun):
    with pytest.raises(ValueError, match="holds a run of stage=vae; leave the stage out"):
        expand_resume([f"resume={begun}", "stage=gan"])
    assert expand_resume([f"resume={begun}", "stage=vae", "--cfg", "job"])[-2:] == ["--cfg", "job"]


def test_only_the_first_of_many_processes_writes_what_hydra_writes(monkeypatch):
    assert with_rank_overrides(["seed=1"]) == ["seed=1"]
    for rank, expected in (
        ("0", []),
        ("1", ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]),
    ):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("RANK", rank)
        assert with_rank_overrides(["seed=1"]) == ["seed=1", *expected]


def test_other_commands_stay_as_they_are():
    assert expand_resume(["stage=vae", "resume=true"]) == ["stage=vae", "resume=true"]


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
        ({"stage": "os.system", "config": {}}, "is damaged"),
    ],
)
def test_a_config_that_is_none_is_said(tmp_path, content, message):
    (tmp_path / "config.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )
    with pytest.raises(ValueError, match=message):
        expand_resume([f"resume={tmp_path}"])


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(
        ValueError, match="holds no run .*config.json.*give the folder of a stage=vae"
    ):
        expand_resume([f"resume={tmp_path}"])
    (tmp_path / "multirun.yaml").touch()
    with pytest.raises(ValueError, match="is the folder of a sweep; repeat the sweep's command"):
        expand_resume([f"resume={tmp_path}"])


def test_a_config_path_is_relative_to_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["--config-path", "conf", "-cp=a b", "--config-path=c", "seed=1"]
    expected = ["--config-path", f"{tmp_path}/conf", f"-cp={tmp_path}/a b"]
    expected += [f"--config-path={tmp_path}/c", "seed=1"]
    assert with_absolute_config_path(words) == expected
