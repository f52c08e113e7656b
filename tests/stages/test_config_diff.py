import pytest

from tests.conftest import SMALL_PIPELINE, compose
from vaegan.config import flatten, to_plain
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs, is_below

PLAIN = to_plain(compose(*SMALL_PIPELINE))


def changed(key):
    """The small pipeline's config with another value at a dotted key."""
    *path, last = key.split(".")
    plain = to_plain(compose(*SMALL_PIPELINE))
    part = plain
    for name in path:
        part = part[name]
    part[last] = "other"
    return plain


@pytest.mark.parametrize("key", flatten(PLAIN))
def test_every_setting_matters_but_for_the_few_that_cannot_change_a_result(key):
    found = diff_configs(PLAIN, changed(key))
    assert found == (
        [] if is_below(key, IGNORED_KEYS) else [f"{key}=other (was {flatten(PLAIN)[key]})"]
    )


def test_what_cannot_change_a_result_exists_and_is_little():
    keys = [key for key in flatten(PLAIN) if is_below(key, IGNORED_KEYS)]
    for name in set(IGNORED_KEYS) - {"dataset.cache", "dataset.num_threads"}:
        assert any(f".{name}." in f".{key}." for key in keys), name
    assert (
        "vae.loader.batch_size" not in keys
        and "gan.trainer.devices" not in keys
        and "seed" not in keys
    )


def test_a_setting_that_is_new_and_null_is_no_difference():
    assert not diff_configs({"a": 1}, {"a": 1, "b": None})


def test_places_matter_unless_they_are_looked_at_otherwise():
    was, now = (
        {"dataset": {"root": "a"}, "vae_ckpt": "b"},
        {"dataset": {"root": "c"}, "vae_ckpt": "d"},
    )
    assert diff_configs(was, now) == ["dataset.root=c (was a)", "vae_ckpt=d (was b)"]
    assert not diff_configs(was, now, (*IGNORED_KEYS, *LOCATION_KEYS))
