"""Tables and event files, taken back to a mark."""

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
    """Log two metrics, the second one at every other step."""
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
    """What a table and TensorBoard show."""
    events = EventAccumulator(str(folder)).Reload()
    scalars = {
        tag: sorted((event.step, event.value) for event in events.Scalars(tag))
        for tag in events.Tags()["scalars"]
    }
    return (folder / "metrics.csv").read_text(), scalars


@pytest.mark.parametrize("at", [1, 2, 5, 8])
def test_a_log_that_is_taken_back_and_written_on_is_that_of_an_undisturbed_run(tmp_path, at):
    write(tmp_path / "calm", range(8))
    write(tmp_path / "run", range(at))
    position = log_position(tmp_path / "run")
    write(tmp_path / "run", range(at, 8))
    truncate_logs(tmp_path / "run", position)
    write(tmp_path / "run", range(at, 8))
    assert read_logs(tmp_path / "run") == read_logs(tmp_path / "calm")


def test_a_table_that_was_cut_short_while_it_was_written_is_taken_back_all_the_same(tmp_path):
    write(tmp_path / "run", range(4))
    position = log_position(tmp_path / "run")
    whole = (tmp_path / "run" / "metrics.csv").read_text()
    with (tmp_path / "run" / "metrics.csv").open("a") as file:
        file.write("0.66")
    truncate_logs(tmp_path / "run", position)
    assert (tmp_path / "run" / "metrics.csv").read_text() == whole


def test_a_new_column_never_leaves_half_a_table(tmp_path, monkeypatch):
    write(tmp_path / "run", range(1))
    before = (tmp_path / "run" / "metrics.csv").read_text()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("killed here")))
    logger = MetricsLogger(tmp_path / "run")
    logger.log_metrics({"c": 1.0}, 1)
    with pytest.raises(OSError, match="killed here"):
        logger.save()
    assert (tmp_path / "run" / "metrics.csv").read_text() == before


def test_a_table_comes_back_as_it_was_written(tmp_path):
    rows = [{"a": "1", "b": ""}, {"a": "", "b": "0.1"}]
    write_table(tmp_path, ["a", "b"], rows)
    assert read_table(tmp_path) == (["a", "b"], rows)


def test_a_run_has_one_event_file_however_many_loops_lightning_goes_through(tmp_path):
    logger = EventsLogger(tmp_path / "run")
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step)
        logger.finalize("success")
    logger.close()
    assert len(list((tmp_path / "run").glob("events*"))) == 1
