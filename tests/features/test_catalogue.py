"""Rows in order of first sight, short texts, and what counts as changed."""

import numpy as np
import pyarrow as pa

from ray_rec.events.schema import ITEMS
from ray_rec.features.catalogue import TEXT_CHARS, Catalogue

from .builders import decoded, item, number_offsets, same


def put(catalogue, *records):
    return catalogue.apply(decoded(number_offsets(list(records)))[ITEMS]).tolist()


def test_text_is_title_category_brand_without_what_is_missing_or_blank():
    catalogue = Catalogue()
    put(
        catalogue,
        item("a", "Tea", category="Drinks", brand="Leaf"),
        item("b", " Tea ", category="", brand="Leaf"),
        item("c", "Tea"),
        item("none", " "),
        item("d", "x" * 2 * TEXT_CHARS),
        item("e", None, brand="Leaf"),
    )
    texts = [catalogue.text(row) for row in range(6)]
    assert texts[:4] == ["Tea. Drinks. Leaf", "Tea. Leaf", "Tea", ""]
    assert len(texts[4]) == TEXT_CHARS
    assert texts[5] == "Leaf"


def test_rows_are_given_once_in_order_and_only_changes_are_listed():
    catalogue = Catalogue()
    assert put(catalogue, item("b", "B"), item("a", "A"), item("b", "B2")) == [0, 1]
    assert catalogue.item_id == ["b", "a"]
    assert catalogue.title.tolist() == ["B2", "A"]  # the later record of the same item counts
    assert put(catalogue, item("a", "A"), item("c", "C")) == [2]  # "a" again as it was
    assert put(catalogue, item("a", "A", price=3.0)) == [1]
    assert put(catalogue, item("a", "A", price=3.0)) == []


def test_a_removed_item_keeps_its_row_only():
    catalogue = Catalogue()
    put(catalogue, item("a", "A", category="k", price=1.0))
    assert put(catalogue, item("a", deleted=True, available=False)) == [0]
    assert catalogue.text(0) == ""
    assert not catalogue.available[0]
    assert np.isnan(catalogue.price[0])
    assert catalogue.category[0] is None
    assert put(catalogue, item("a", "A again")) == [0]
    assert catalogue.available[0]


def test_unknown_items_have_rows_but_no_text_until_their_record_comes():
    catalogue = Catalogue()
    assert catalogue.rows(pa.array(["x", "y", "x"])).tolist() == [-1, -1, -1]
    assert catalogue.rows(pa.array(["x", "y", "x"]), add=True).tolist() == [0, 1, 0]
    assert catalogue.text(1) == ""
    assert catalogue.available.tolist() == [True, True]
    assert put(catalogue, item("y", "Y")) == [1]
    listed = catalogue.window_items(np.array([1], np.int32)).to_pylist()
    assert listed[0]["text"] == "Y"
    assert listed[0]["item_id"] == "y"


def test_its_size_follows_the_texts_that_it_holds():
    catalogue = Catalogue()
    put(catalogue, item("a", "Tea"), item("b", "Bread"))
    empty = catalogue.num_bytes
    put(catalogue, item("a", "T" * 100), item("b", deleted=True, available=False))
    # a title stands in the text as well: 2 * (100 - 3) more, 2 * 5 less
    assert catalogue.num_bytes == empty + 194 - 10


def test_restore_gives_the_same_catalogue():
    catalogue = Catalogue()
    put(catalogue, item("a", "A", price=2.5, brand="ö"), item("b", deleted=True, available=False))
    again = Catalogue()
    again.restore([catalogue.snapshot()])
    assert same(again.snapshot(), catalogue.snapshot())
    assert put(again, item("a", "A", price=2.5, brand="ö"), item("c", "C")) == [2]
