"""Differences between the settings of two runs."""

import copy

import pytest

from tests.conftest import SMALL_PIPELINE, compose
from vaegan.config import flatten, to_plain
from vaegan.stages.config_diff import IGNORED_KEYS, KEPT_KEYS, LOCATION_KEYS, diff_configs, is_below

PLAIN = to_plain(compose(*SMALL_PIPELINE))


def changed(key):
    """Return the plain config of the small pipeline with another value for a dotted key."""
    *path, last = key.split(".")
    plain = copy.deepcopy(PLAIN)
    part = plain
    for name in path:
        part = part[name]
    part[last] = "other"
    return plain


@pytest.mark.parametrize("key", flatten(PLAIN))
def test_all_settings_are_compared_except_ignored_keys(key):
    differences = diff_configs(PLAIN, changed(key))
    assert differences == (
        [] if is_below(key, IGNORED_KEYS) else [f"{key}=other (was {flatten(PLAIN)[key]})"]
    )


def test_an_option_that_earlier_versions_lack_is_off():
    old, new = copy.deepcopy(PLAIN), copy.deepcopy(PLAIN)
    del old["decoder"]["skip_excitation"]
    assert diff_configs(old, new) == []
    new["decoder"]["skip_excitation"] = True
    assert diff_configs(old, new) == ["decoder.skip_excitation=True (was None)"]
    assert len(diff_configs(new, old)) == 1
    del old["dataset"]["name"]
    new = copy.deepcopy(PLAIN)
    new["dataset"]["name"] = False  # another key is not taken for an option that is off
    assert diff_configs(old, new) == ["dataset.name=False (was None)"]


def test_null_keeps_the_setting_of_a_resumed_run():
    old, new = copy.deepcopy(PLAIN), copy.deepcopy(PLAIN)
    old["decoder"]["padding"], old["gan"]["trainer"]["precision"] = "zeros", "32-true"
    old["gan"]["noise_inputs"] = False
    old["gan"]["warm_start"]["bandwidth"] = 0.3
    assert diff_configs(old, new, kept=KEPT_KEYS) == []
    assert len(diff_configs(old, new)) == 4  # a sweep's finished jobs have other settings
    new["decoder"]["padding"] = "replicate"
    assert diff_configs(old, new, kept=KEPT_KEYS) == ["decoder.padding=replicate (was zeros)"]
    defaults = flatten(to_plain(compose()))
    for key in KEPT_KEYS:
        assert any(is_below(name, [key]) and value is None for name, value in defaults.items())


def test_ignored_keys_exist_and_exclude_essential_settings():
    keys = [key for key in flatten(PLAIN) if is_below(key, IGNORED_KEYS)]
    for name in set(IGNORED_KEYS) - {"dataset.cache", "dataset.num_threads"}:
        assert any(f".{name}." in f".{key}." for key in keys), name
    assert (
        "vae.loader.batch_size" not in keys
        and "gan.trainer.devices" not in keys
        and "seed" not in keys
    )


def test_new_setting_with_value_null_is_not_a_difference():
    assert not diff_configs({"a": 1}, {"a": 1, "b": None})


def test_locations_are_compared_unless_ignored():
    old, new = (
        {"dataset": {"root": "a"}, "vae_ckpt": "b"},
        {"dataset": {"root": "c"}, "vae_ckpt": "d"},
    )
    assert diff_configs(old, new) == ["dataset.root=c (was a)", "vae_ckpt=d (was b)"]
    assert not diff_configs(old, new, (*IGNORED_KEYS, *LOCATION_KEYS))
