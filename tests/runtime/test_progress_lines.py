import time

from vaegan.runtime.progress_lines import ProgressLines


def test_lines_come_soon_and_then_at_growing_intervals(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    caplog.set_level("INFO")
    lines = ProgressLines("decoding", 1200, "files")
    seconds = []
    for second in range(1, 301):
        now[0] += 1
        before = len(caplog.messages)
        lines.update(4 * second)
        seconds += [second] * (len(caplog.messages) - before)
    assert seconds == [2, 4, 8, 16, 32, 64, 124, 184, 244]
    assert caplog.messages[0] == ("decoding: 8 of 1,200 files (1%), 0:00:02, about 0:04:58 left")


def test_note_is_added(monkeypatch, caplog):
    monkeypatch.setattr("vaegan.runtime.progress_lines.FIRST_SECONDS", 0.0)
    caplog.set_level("INFO")
    ProgressLines("decoding", 10, "files").update(5, ", 2 skipped")
    assert caplog.messages[0].endswith("left, 2 skipped")


def test_nothing_is_logged_before_the_first_unit_of_work(monkeypatch, caplog):
    monkeypatch.setattr("vaegan.runtime.progress_lines.FIRST_SECONDS", 0.0)
    caplog.set_level("INFO")
    ProgressLines("decoding", 10, "files").update(0)
    assert not caplog.messages
