"""Masks without a prompt: computed once for each volume and weights, with their progress in the meantime."""

from __future__ import annotations

import numpy as np
import pytest

from lib.infers.answer import AnswerParams
from lib.infers.unprompted import SearchProgress, UnpromptedMasks
from sam3d_label.cache import LruCache

MASK = (np.arange(3 * 5 * 7).reshape(3, 5, 7) % 3 == 0).astype(np.uint8)


class Search:
    """Counts how often it is computed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> tuple[np.ndarray, AnswerParams]:
        self.count += 1
        return MASK, {"voxels": int(MASK.sum())}


def test_a_mask_is_computed_once_for_each_key() -> None:
    masks, search = UnpromptedMasks(LruCache()), Search()
    answers = [masks.get(key, search) for key in ("v1", "v1", "v2")]
    assert [cached for _, _, cached in answers] == [False, True, False]
    for mask, described, _ in answers:
        np.testing.assert_array_equal(mask, MASK)
        assert mask.dtype == np.uint8
        assert described == {"voxels": int(MASK.sum())}
    assert search.count == 2


def test_what_a_caller_changes_does_not_change_what_is_kept() -> None:
    masks = UnpromptedMasks(LruCache())
    mask, described, _ = masks.get("v1", Search())
    mask[:], described["voxels"] = 0, 0
    mask, described, _ = masks.get("v1", Search())
    assert int(mask.sum()) == described["voxels"] == int(MASK.sum())


def test_without_a_budget_every_mask_is_computed() -> None:
    masks, search = UnpromptedMasks(LruCache(0)), Search()
    assert [masks.get("v1", search)[2] for _ in range(2)] == [False, False]


def test_progress_is_that_of_the_image_while_it_is_searched() -> None:
    masks = UnpromptedMasks(LruCache())
    with masks.show_progress("a") as tell:
        assert masks.progress("a") == SearchProgress(0, 0)
        tell(2, 9)
        assert masks.progress("a") == SearchProgress(2, 9)
        assert masks.progress("b") is None
    assert masks.progress("a") is None


def test_a_search_that_fails_is_no_longer_shown() -> None:
    masks = UnpromptedMasks(LruCache())
    with pytest.raises(ZeroDivisionError), masks.show_progress("a"):
        raise ZeroDivisionError
    assert masks.progress("a") is None
