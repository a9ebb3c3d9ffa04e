"""Each wrong value is refused by the name of its key."""

import pytest

from ray_rec.errors import ConfigError
from ray_rec.features.config import FeatureConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("history_length", 1),
        ("attribution_ms", 0),
        ("lateness_ms", -1),
        ("dedup_ms", -1),
        ("covisits", -1),
        ("covisits", 1_001),
        ("user_ttl_days", -1),
        ("max_state_mb", 0.0),
        ("held_out_share", 0.9),
        ("half_lives_days", ()),
        ("half_lives_days", (1.0, -1.0)),
        ("event_types", ("view",)),
        ("event_types", ("view", "view", "other")),
        ("target_types", ("gaze",)),
        ("outcome_types", ()),
    ],
)
def test_a_wrong_value_names_its_key(key, value):
    with pytest.raises(ConfigError, match=f"features.{key}"):
        FeatureConfig(**{key: value})


def test_lists_become_tuples_and_back():
    config = FeatureConfig(half_lives_days=[2.0])
    assert config.half_lives_days == (2.0,)
    assert FeatureConfig(**config.to_dict()) == config
