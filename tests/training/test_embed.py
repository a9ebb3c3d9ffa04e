"""The catalogue's texts, encoded by a pool of actors."""

from collections.abc import Callable

import numpy as np
import pytest

from ray_rec.config import RunConfig
from ray_rec.events.schema import ITEMS, Record
from ray_rec.log.base import open_log
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.text import TextStore
from ray_rec.training.embed import EmbedReport, catalogue_texts, embed_catalogue

MakeConfig = Callable[..., RunConfig]


def never(texts: object) -> np.ndarray:
    raise AssertionError(f"has to be in the store: {texts}")


def test_the_newest_text_of_each_item_counts_once(make_config: MakeConfig) -> None:
    config = make_config()
    num_items, texts = catalogue_texts(config.log)
    assert (num_items, len(texts)) == (48, 48)

    with open_log(config.log) as log:
        renamed = b'{"item_id":"i0","title":"milk number 1","category":"milk","ts":1700000000001}'
        log.append(ITEMS, [Record(b"i0", renamed, 1_700_000_000_001)])
    num_items, renamed_texts = catalogue_texts(config.log)
    assert num_items == 48
    assert set(renamed_texts) == set(texts) - {"milk number 0. milk"}


@pytest.mark.ray
def test_what_has_no_vector_is_encoded_once_by_the_pool(
    cluster: None, make_config: MakeConfig
) -> None:
    config = make_config()
    told: list[tuple[str, int, int]] = []
    report = embed_catalogue(config, progress=lambda *news: told.append(news))
    assert report == EmbedReport(items=48, texts=48, encoded=48)
    assert told[0] == ("texts", 0, 48)
    assert told[-1] == ("texts", 48, 48)

    encoder = TextEncoder(config.encoder)
    texts = catalogue_texts(config.log)[1]
    kept = TextStore(f"{config.state_dir}/texts", encoder.digest).vectors(texts, never)
    np.testing.assert_allclose(kept, encoder.encode(texts), atol=0.02)  # bf16 batches differ

    assert embed_catalogue(config) == EmbedReport(items=48, texts=48, encoded=0)
