"""Truncation of metrics.csv and event files to a log position."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaegan.training.loggers import (
    EventsLogger,
    MetricsLogger,
    log_position,
    read_table,
    truncate_logs,
    write_table,
)


def write(folder, steps):
    """Log one metric at every step and another at every second step."""
    loggers = [MetricsLogger(folder), EventsLogger(folder)]
    for step in steps:
        for logger in loggers:
            logger.log_metrics({"a": step / 3}, step)
            if step % 2:
                logger.log_metrics({"b": -step / 3}, step)
    for logger in loggers:
        logger.save()
        logger.finalize("success")
    loggers[1].close()


def read_logs(folder):
    """Return the text of metrics.csv and the scalars in the event files."""
    events = EventAccumulator(str(folder)).Reload()
    scalars = {
        tag: sorted((event.step, event.value) for event in events.Scalars(tag))
        for tag in events.Tags()["scalars"]
    }
    return (folder / "metrics.csv").read_text(), scalars


@pytest.mark.parametrize("num_steps", [1, 2, 5, 8])
def test_truncated_and_continued_logs_equal_those_of_an_uninterrupted_run(tmp_path, num_steps):
    write(tmp_path / "reference", range(8))
    write(tmp_path / "run", range(num_steps))
    position = log_position(tmp_path / "run")
    write(tmp_path / "run", range(num_steps, 8))
    truncate_logs(tmp_path / "run", position)
    write(tmp_path / "run", range(num_steps, 8))
    assert read_logs(tmp_path / "run") == read_logs(tmp_path / "reference")


def test_partial_last_row_is_removed_by_truncation(tmp_path):
    write(tmp_path / "run", range(4))
    position = log_position(tmp_path / "run")
    complete = (tmp_path / "run" / "metrics.csv").read_text()
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("0.66")
    truncate_logs(tmp_path / "run", position)
    assert (tmp_path / "run" / "metrics.csv").read_text() == complete


def test_new_column_is_written_atomically(tmp_path, monkeypatch):
    write(tmp_path / "run", range(1))
    before = (tmp_path / "run" / "metrics.csv").read_text()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("interrupted")))
    logger = MetricsLogger(tmp_path / "run")
    logger.log_metrics({"c": 1.0}, 1)
    with pytest.raises(OSError, match="interrupted"):
        logger.save()
    assert (tmp_path / "run" / "metrics.csv").read_text() == before


def test_table_round_trip(tmp_path):
    rows = [{"a": "1", "b": ""}, {"a": "", "b": "0.1"}]
    write_table(tmp_path, ["a", "b"], rows)
    assert read_table(tmp_path) == (["a", "b"], rows)


def test_all_loops_of_a_run_share_one_event_file(tmp_path):
    logger = EventsLogger(tmp_path / "run")
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step)
        logger.finalize("success")
    logger.close()
    assert len(list((tmp_path / "run").glob("events*"))) == 1
