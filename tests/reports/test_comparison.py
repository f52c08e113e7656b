"""Comparison of GAN runs: statistics, report files, and validation of run folders."""

import csv
import json
import math

import pytest

from vaegan.reports.comparison import Criteria, compare_to_baseline
from vaegan.reports.curves import Curve, find_improvements, insert_generator_start, median_curve
from vaegan.reports.run_records import find_runs, read_curve
from vaegan.stages import compare as stage
from vaegan.stages.tool_configs import CompareRun

DEFAULTS = CompareRun(runs=["x"])
CRITERIA = Criteria(DEFAULTS.baseline, DEFAULTS.max_update_ratio, DEFAULTS.max_rise)
NAMES = ("fewer_updates", "never_worse_than_start", "no_worse_at_end", "less_compute")

COLD = [100.0, 80.0, 90.0, 40.0, 20.0]  # levels: 80, 40, 20 after 10, 30, 40 updates
WARM = [50.0, 55.0, 30.0, 20.0, 10.0]
RECORD = {
    "dataset": "mnist",
    "feature_extractor": "digits_cnn",
    "num_images": 5000,
    "real_vs_real": {"frechet_distance": 1.5, "recall": 0.9},
    "stage1_compute": 0.0,
    "metrics": {"test/frechet_distance": 21.0, "val/frechet_distance": 20.0},
    "config": {},
}


def compare(runs, baseline, output_dir):
    """Run stage=compare; return the content of comparison.json."""
    stage.compare(CompareRun(runs=runs, baseline=baseline), output_dir)
    return json.loads((output_dir / "comparison.json").read_text())


def compare_curves(arm, baseline, criteria=CRITERIA):
    return compare_to_baseline(arm, baseline, criteria)


def criteria_met(result):
    """Return the names of the criteria that are met."""
    return {name for name, is_met in result["criteria"].items() if is_met}


def curve(distance, recall=0.5, warmup=0, stage1=0.0):
    """Return a curve with validations every 100 images, 10 updates and 1 PFLOP.

    There are no updates in the first `warmup` intervals.
    """
    num_validations = len(distance)
    updates = [10.0 * max(0, i - warmup) for i in range(num_validations)]
    return Curve(
        [100.0 * i for i in range(num_validations)],
        updates,
        [stage1 + i for i in range(num_validations)],
        distance,
        [recall] * num_validations,
    )


def write_run(folder, label, seed, distance, recall=0.5, every=100, **fields):
    """Write the files of a finished run that a comparison reads; return the run folder."""
    gan = folder / "gan"
    gan.mkdir(parents=True)
    (gan / "run.json").write_text(json.dumps(RECORD | {"label": label, "seed": seed} | fields))
    with (gan / "metrics.csv").open("w", newline="") as file:
        columns = ["step", "train/d_loss", "val/images", "val/generator_updates", "val/compute"]
        table = csv.writer(file)
        table.writerow([*columns, "val/frechet_distance", "val/recall"])
        for i, value in enumerate(distance):
            table.writerow([i, 0.7, "", "", "", "", ""])
            table.writerow([i, "", every * i, 10 * i, float(i), value, recall])
    return folder


@pytest.fixture
def pair(tmp_path):
    """Return the folders of a cold and a warm run."""
    cold = write_run(tmp_path / "cold", "cold", 0, COLD)
    return [str(cold), str(write_run(tmp_path / "warm", "warm", 0, WARM, stage1_compute=1.0))]


def test_ratios_equal_manual_calculation():
    result = compare_curves(curve(WARM, stage1=1.0), curve(COLD))
    assert [level["frechet_distance"] for level in result["levels"]] == [80, 40, 20]
    # 80: reached at the start. 40: 15/25 of the way from 55 (10 updates) to 30 (20 updates).
    # 20: reached after 30 updates.
    assert [level["updates"] for level in result["levels"]] == pytest.approx([0, 16, 30])
    assert [level["compute"] for level in result["levels"]] == pytest.approx([1, 2.6, 4])
    assert result["update_ratio"] == pytest.approx(
        {"worst": 30 / 40, "median": 16 / 30, "share_met": 1 / 3}
    )
    assert result["compute_ratio"] == pytest.approx({"worst": 1, "median": 1, "share_met": 1 / 3})
    assert result["worst_rise"] == pytest.approx(1.1)
    assert tuple(result["criteria"]) == NAMES
    assert criteria_met(result) == {"never_worse_than_start", "no_worse_at_end"}


def test_baseline_compared_with_itself_has_ratio_one():
    result = compare_curves(curve(COLD), curve(COLD))
    assert result["update_ratio"] == {"worst": 1, "median": 1, "share_met": 0}
    assert result["compute_ratio"] == {"worst": 1, "median": 1, "share_met": 0}
    assert result["criteria"]["no_worse_at_end"]


def test_all_criteria_can_be_met():
    result = compare_curves(curve([18.0, 19.0, 9.0, 8.0, 7.0], recall=0.6), curve(COLD))
    assert criteria_met(result) == set(NAMES)


@pytest.mark.parametrize(
    "arm, name",
    [
        (curve([18.0, 20.5, 9.0, 8.0, 7.0]), "never_worse_than_start"),  # rises by 14%
        (curve([18.0, 19.0, 9.0, 8.0, 21.0]), "never_worse_than_start"),
        (curve([18.0, 19.0, 9.0, 8.0, 7.0], recall=0.4), "no_worse_at_end"),
        (curve([19.0, 19.0, 19.0, 19.0, 20.5]), "no_worse_at_end"),
        (curve([18.0, 19.0, 9.0, 8.0, 7.0], stage1=4.0), "less_compute"),
        (curve([70.0, 50.0, 40.0, 8.0, 7.0]), "fewer_updates"),
    ],
)
def test_each_criterion_can_fail(arm, name):
    assert not compare_curves(arm, curve(COLD))["criteria"][name]


def test_thresholds_are_configurable():
    result = compare_curves(curve(WARM, stage1=1.0), curve(COLD), Criteria("cold", 0.75, 1.0))
    assert criteria_met(result) == {"fewer_updates", "no_worse_at_end"}
    with pytest.raises(ValueError, match="max_rise must be positive; got 0"):
        CompareRun(runs=["x"], max_rise=0)


def test_ratio_of_a_level_never_reached_is_infinite():
    result = compare_curves(curve([50.0, 45.0, 42.0, 41.0, 41.0]), curve(COLD))
    assert result["update_ratio"]["worst"] == result["compute_ratio"]["worst"] == math.inf
    assert result["update_ratio"]["median"] == math.inf and result["update_ratio"][
        "share_met"
    ] == pytest.approx(1 / 3)


def test_levels_start_with_the_first_generator_update():
    assert find_improvements(curve([100.0, 70.0, 80.0, 60.0, 60.0], warmup=1)) == [3]
    assert find_improvements(curve([100.0, 70.0, 80.0, 75.0, 60.0])) == [1, 4]
    result = compare_curves(curve([10.0, 9.0]), curve([100.0, 101.0]))
    assert not result["levels"] and math.isnan(result["update_ratio"]["worst"])
    assert not criteria_met(result) & {"fewer_updates", "less_compute"}


def test_final_scores_are_compared_at_the_last_common_validation():
    result = compare_curves(curve([50.0, 45.0, 30.0]), curve(COLD))
    assert result["common_end"] == {
        "images": 200,
        "frechet_distance": [30, 90],
        "recall": [0.5, 0.5],
    }
    assert result["criteria"]["no_worse_at_end"]


def test_median_curve_is_pointwise():
    curves = [
        curve([9.0, 1.0], 0.1),
        curve([7.0, 3.0], 0.5, stage1=1.0),
        curve([8.0, 2.0], 0.3, stage1=5.0),
    ]
    assert median_curve(curves) == Curve([0, 100], [0, 10], [1, 2], [8, 2], [0.3, 0.3])


def test_report_summarizes_seeds(tmp_path):
    for seed, factor in enumerate((1.0, 1.5, 2.0)):
        scaled = [factor * d for d in COLD]
        write_run(
            tmp_path / f"{seed}", "cold", seed, scaled, config={"warm_start": False, "seed": seed}
        )
    warm = {"stage1_compute": 0.5, "config": {"warm_start": True, "seed": 0}}
    write_run(tmp_path / "3", "warm", 1, [18.0, 19.0, 9.0, 8.0, 7.0], 0.6, **warm)
    write_run(tmp_path / "4", "warm", 7, [18.0, 27.0, 9.0, 8.0, 5.0], 0.7, **warm)
    report = compare([str(tmp_path)], "cold", tmp_path / "out")
    assert report == json.loads((tmp_path / "out" / "comparison.json").read_text())
    (panel,) = report["panels"]
    cold, warm = panel["arms"]
    assert panel["settings"] == {"warm_start": {"cold": ["false"], "warm": ["true"]}}
    assert panel["real_vs_real"]["frechet_distance"] == {"median": 1.5, "min": 1.5, "max": 1.5}
    assert (cold["label"], cold["seeds"], warm["label"], warm["seeds"]) == (
        "cold",
        [0, 1, 2],
        "warm",
        [1, 7],
    )
    assert cold["start"]["frechet_distance"] == {"median": 150, "min": 100, "max": 200}
    assert cold["end"]["frechet_distance"] == {"median": 30, "min": 20, "max": 40}
    assert warm["end"]["frechet_distance"] == {"median": 6, "min": 5, "max": 7}
    assert warm["end"]["updates"] == 40 and warm["end"]["compute"] == 4.5
    assert warm["test"]["test/frechet_distance"]["median"] == 21
    assert warm["worst_rise"] == {
        "median_curve": pytest.approx(23 / 18),
        "worst_seed": pytest.approx(1.5),
    }
    assert criteria_met(warm["against_baseline"]) == set(NAMES) - {"never_worse_than_start"}
    assert "against_baseline" not in cold
    (seed_pair,) = warm["seed_pairs"]  # seed 7 has no cold run
    assert seed_pair["seed"] == 1 and criteria_met(seed_pair) == set(NAMES)
    assert seed_pair["levels"][0]["frechet_distance"] == 120


def test_report_files_and_printed_text(tmp_path, pair, capsys):
    pair.append(
        str(write_run(tmp_path / "late", "late", 3, [50.0, 45.0, 42.0], stage1_compute=2.0))
    )
    report = compare(pair, "cold", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    printed = capsys.readouterr().out
    assert text in printed and "comparison.png" in printed
    lines = text.splitlines()
    scores = "0.5 | 21"
    assert f"| cold | 1 | 0 | 100 → 20 | {scores} | 1 / 1 | 1 / 1 | 1 (1) |  |  |  |  |" in lines
    ratios = "0.533 / 0.75 | 1 / 1 | 1.1 (1.1)"
    criteria = "no (0/1) | yes (1/1) | yes (1/1) | no (0/1)"
    assert f"| warm | 1 | 1 | 50 → 10 | {scores} | {ratios} | {criteria} |" in lines
    ratios = "not reached / not reached | not reached / not reached | 1 (1)"
    criteria = " | ".join(f"{word} (no common seed)" for word in ("no", "yes", "yes", "no"))
    assert f"| late | 1 | 2 | 50 → 42 | {scores} | {ratios} | {criteria} |" in lines
    assert "- fewer updates: at most 0.25 times the generator updates of the baseline" in text
    assert "Images seen: cold 400, warm 400, late 200." in text
    assert report["panels"][0]["arms"][2]["against_baseline"]["update_ratio"]["worst"] is None


def test_each_data_set_is_a_separate_panel(tmp_path, pair):
    for label in ("cold", "warm"):
        pair.append(
            str(
                write_run(tmp_path / f"c{label}", label, 0, WARM, dataset="cifar10", num_images=100)
            )
        )
    panels = compare(pair, "cold", tmp_path / "out")["panels"]
    assert [(panel["dataset"], panel["num_images"]) for panel in panels] == [
        ("cifar10", 100),
        ("mnist", 5000),
    ]


def test_diverged_generator_has_infinite_distance(tmp_path, pair):
    pair.append(str(write_run(tmp_path / "broken", "broken", 0, [50.0, 30.0, math.nan, math.nan])))
    arm = next(
        arm
        for arm in compare(pair, "cold", tmp_path / "out")["panels"][0]["arms"]
        if arm["label"] == "broken"
    )
    assert arm["end"]["frechet_distance"]["median"] is None and arm["end"]["recall"]["median"] == 0
    assert not criteria_met(arm["against_baseline"]) & {"never_worse_than_start", "no_worse_at_end"}


def test_runs_are_found_by_folder_multirun_and_glob_without_duplicates(tmp_path):
    for job in ("0", "2", "10"):
        write_run(tmp_path / "multirun" / job, "cold", int(job), COLD)
    (tmp_path / "multirun" / "multirun.yaml").write_text("")
    multirun = tmp_path / "multirun"
    jobs = [multirun / job / "gan" for job in ("0", "2", "10")]
    assert find_runs([str(multirun)]) == jobs
    assert sorted(find_runs([str(multirun / "*")])) == sorted(jobs)
    assert sorted(find_runs([str(tmp_path / "**" / "gan")])) == sorted(jobs)
    assert find_runs([str(multirun / "2"), str(multirun / "2" / "gan"), str(multirun / "?")]) == [
        jobs[1],
        jobs[0],
    ]


def test_unfinished_and_missing_runs_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="runs must be folders of stage=gan.*nowhere"):
        find_runs([str(tmp_path / "nowhere*")])
    with pytest.raises(ValueError, match="contains no GAN run"):
        find_runs([str(tmp_path)])
    (write_run(tmp_path / "0", "cold", 0, COLD) / "gan" / "run.json").unlink()
    for path in (tmp_path, tmp_path / "0", tmp_path / "0" / "gan"):
        with pytest.raises(ValueError, match="0.* is not finished: it has no run.json"):
            find_runs([str(path)])
    with pytest.raises(ValueError, match="runs must be the folders of finished"):
        compare([], "cold", tmp_path)


def test_baseline_must_be_a_label_of_a_run(tmp_path, pair):
    message = "baseline must be the label of a run on mnist, one of cold, warm; got 'cool'"
    with pytest.raises(ValueError, match=message):
        compare(pair, "cool", tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label": ""}, "third.* has no label; train with one label per arm"),
        ({"label": "warm", "seed": 0}, "warm.*third.* have the same label=warm and seed=0"),
        (
            {"label": "warm", "distance": WARM[:3]},
            "warm.*third.* label=warm, but not the same validations",
        ),
        ({"label": "warm", "every": 50}, "warm.*third.* label=warm, but not the same validations"),
        ({"num_images": 1000}, "cold.*third.* were scored on different numbers of images"),
        (
            {"every": 150, "distance": WARM[:2]},
            "cold.*third.* have no validation in common after the start",
        ),
        (
            {"real_vs_real": {"frechet_distance": 1.6}},
            "cold.*third.* were scored differently: .* distances 1.5 and 1.6",
        ),
        ({"real_vs_real": {}}, "run.json is damaged: .*real_vs_real must be"),
        ({"metrics": {"test/frechet_distance": None}}, "run.json is damaged: TypeError"),
        ({"seed": "1"}, "run.json is damaged: .*seed must be"),
        ({"distance": [50.0]}, "metrics.csv must contain a validation at 0 images"),
        ({"distance": [0.0, 1.0]}, "metrics.csv must contain a validation at 0 images"),
        (
            {"label": "\x1b[31mred"},
            r"run.json is damaged: .*every name must be .*got '\\x1b\[31mred'",
        ),
        ({"label": "two\nlines"}, r"run.json is damaged: .*got 'two\\nlines'"),
        ({"feature_extractor": "\x07"}, "run.json is damaged: .*every name must be"),
        ({"config": {"\x1b": {"\n": 1}}}, "run.json is damaged: .*every name must be"),
        (
            {"real_vs_real": {"frechet_distance": 1.5, "\r": 1}},
            "run.json is damaged: .*every name must be",
        ),
        ({"metrics": {"test/frechet_distance": 10**400}}, "run.json is damaged: OverflowError"),
        ({"distance": ["5O", 1.0]}, "metrics.csv is damaged: ValueError"),
        ({"recall": ""}, "metrics.csv is damaged: ValueError"),
        ({"recall": "nan"}, "metrics.csv is damaged: .* must be finite"),
        ({"every": 0}, "metrics.csv is damaged: .* must increase"),
    ],
)
def test_runs_that_are_not_comparable_are_rejected(tmp_path, pair, changes, message):
    third = write_run(
        tmp_path / "third", **({"label": "third", "seed": 1, "distance": WARM} | changes)
    )
    with pytest.raises(ValueError, match=f"runs: .*{message}"):
        compare([*pair, str(third)], "cold", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_rejected(tmp_path):
    gan = write_run(tmp_path / "run", "cold", 0, COLD) / "gan"
    (gan / "metrics.csv").write_text("step,val/frechet_distance\n0,5\n")
    with pytest.raises(ValueError, match="metrics.csv is damaged: KeyError: 'val/images'"):
        read_curve(gan / "metrics.csv", 0.0)
    with pytest.raises(ValueError, match="none.csv is damaged: FileNotFoundError"):
        read_curve(gan / "none.csv", 0.0)
    (gan / "run.json").write_text('{"label": "co')
    with pytest.raises(ValueError, match="run.json is damaged: JSONDecodeError"):
        compare([str(gan)], "cold", tmp_path)


def test_names_from_files_are_never_interpreted(tmp_path, pair, capsys):
    """Not as terminal markup, path, matplotlib formula, command or config interpolation."""
    label = "[red]x[/red] | $x^{ ../../$(touch y) ${oc.env:HOME}"
    config = {"x": "\x1b[31m", "y": "${oc.env:HOME}", "_target_": "os.system"}
    third = write_run(tmp_path / "third", label, 0, WARM, config=config)
    compare([*pair, str(third)], "cold", tmp_path / "out")
    out = capsys.readouterr().out
    assert "[red]x[/red] " in out and "${oc.env:HOME}" in out and "\x1b" not in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"comparison.{suffix}" for suffix in ("json", "md", "png")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"cold", "warm", "third", "out"}


@pytest.mark.parametrize(
    "path", ["https://example.org/run", "s3://bucket/run", "file:///etc", "[0-9"]
)
def test_urls_and_invalid_patterns_are_rejected(path):
    with pytest.raises(ValueError, match="runs must be folders of stage=gan"):
        find_runs([path])


def test_deeply_nested_json_is_rejected(tmp_path):
    gan = write_run(tmp_path / "run", "cold", 0, COLD) / "gan"
    (gan / "run.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="run.json is damaged: RecursionError"):
        compare([str(gan)], "cold", tmp_path)


def test_generator_start_is_inserted_after_warmup():
    """With 50 of 100 images as warm-up, a straight line would reach 60 before the first update."""
    curve = Curve([0, 100, 200], [0, 5, 15], [1.0, 2.0, 3.0], [100, 20, 10], [0.5, 0.6, 0.7])
    result = insert_generator_start(curve)
    assert result == (
        [0, 50, 100, 200],
        [0, 0, 5, 15],
        [1.0, 1.5, 2.0, 3.0],
        [100, 100, 20, 10],
        [0.5, 0.5, 0.6, 0.7],
    )
    aligned = Curve([0, 100, 200], [0, 0, 10], [1.0, 2.0, 3.0], [100, 100, 10], [0.5, 0.5, 0.7])
    assert insert_generator_start(aligned) == aligned
    never = Curve([0, 100, 200], [0, 0, 0], [1.0, 2.0, 3.0], [100, 100, 100], [0.5, 0.5, 0.5])
    assert insert_generator_start(never) == never
