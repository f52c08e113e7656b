"""outcome.json: round trip, validation, and detection of finished jobs."""

import json
import os

import pytest

from vaegan.sweeps.outcome import (
    OUTCOME_FILE,
    ConfigMismatch,
    Outcome,
    find_finished_outcome,
    read_outcome,
)

CONFIG = {"seed": 0, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]}, "likelihood": None}


def outcome(**changes):
    """Return the outcome of a finished job with some fields changed."""
    fields = {
        "status": "finished",
        "overrides": ["seed=0"],
        "config": CONFIG,
        "metric": "val/elbo",
        "value": -90.5,
    }
    return Outcome(
        **fields | {"metrics": {"val/elbo": -90.5, "test/kl": None}, "error": None} | changes
    )


def test_round_trip_as_plain_json(tmp_path):
    assert read_outcome(tmp_path) is None
    outcome().write(tmp_path)
    assert read_outcome(tmp_path) == outcome()
    assert set(json.loads((tmp_path / OUTCOME_FILE).read_text())) == {
        *("status", "overrides", "config", "metric", "value", "metrics", "error")
    }
    outcome(status="failed", value=None, metrics={}, error="it broke").write(tmp_path)
    assert read_outcome(tmp_path).error == "it broke"


def test_failed_write_keeps_the_earlier_outcome(tmp_path, monkeypatch):
    outcome().write(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        outcome(value=1.0).write(tmp_path)
    assert read_outcome(tmp_path) == outcome()
    assert [path.name for path in tmp_path.iterdir()] == [OUTCOME_FILE]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "JSONDecodeError"),
        ('{"status": "fin', "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "TypeError"),
        ("[" * 100_000, "RecursionError"),
        ({"status": "done"}, "status must be finished or failed; got 'done'"),
        ({"value": "-90"}, "value must be finite, or null"),
        ({"value": True}, "value must be finite, or null"),
        ({"value": float("nan")}, "value must be finite, or null"),
        ({"metrics": {"val/elbo": "low"}}, "value must be finite, or null"),
        ({"metrics": []}, "metrics must be a mapping"),
        ({"config": None}, "config must be a mapping"),
        ({"overrides": "seed=0"}, "overrides must be a list of strings"),
        ({"overrides": [0]}, "overrides must be a list of strings"),
        ({"error": 3}, "error must be a message"),
        ({"metric": None}, "metric must be a tag"),
        ({"more": 1}, "TypeError"),
    ],
)
def test_damaged_outcome_is_rejected(tmp_path, text, message):
    if isinstance(text, dict):
        outcome().write(tmp_path)
        text = json.dumps(json.loads((tmp_path / OUTCOME_FILE).read_text()) | text)
    (tmp_path / OUTCOME_FILE).write_text(text)
    with pytest.raises(
        ValueError,
        match=rf"{OUTCOME_FILE} is damaged \(.*{message}.*\); delete it to run the job again",
    ):
        read_outcome(tmp_path)
    with pytest.raises(ConfigMismatch, match="damaged"):
        find_finished_outcome(tmp_path, CONFIG)


def test_finished_job_with_the_same_config_is_found(tmp_path):
    assert find_finished_outcome(tmp_path, CONFIG) is None
    outcome(status="failed", value=None, error="it broke").write(tmp_path)
    assert find_finished_outcome(tmp_path, CONFIG) is None
    outcome().write(tmp_path)
    assert find_finished_outcome(tmp_path, CONFIG) == outcome()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 1}, r"\(seed=1 \(was 0\)\)"),
        (
            {"optimizer": {"lr": 2e-3, "betas": [0.9, 0.999]}},
            r"\(optimizer.lr=0.002 \(was 0.001\)\)",
        ),
        ({"likelihood": {"name": "gaussian"}}, r"\(likelihood.name=gaussian \(was None\)\)"),
    ],
)
def test_finished_job_with_another_config_is_rejected(tmp_path, changes, message):
    outcome().write(tmp_path)
    with pytest.raises(ConfigMismatch, match=message + ".*set hydra.sweep.dir to a new folder"):
        find_finished_outcome(tmp_path, CONFIG | changes)
