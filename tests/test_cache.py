import threading

import pytest
import torch

from sam3d_label.cache import LruCache
from sam3d_label.network import Embedding


def embedding(floats: int) -> Embedding:
    return Embedding(torch.zeros(floats), torch.zeros(0))


def refuse() -> Embedding:
    raise AssertionError("this key was to be cached")


def test_a_key_is_made_once():
    cache = LruCache(1000)
    first, made = cache.get("a", lambda: embedding(10))
    assert made
    assert cache.get("a", refuse) == (first, False)


def test_the_least_recently_used_goes_when_the_budget_is_reached():
    cache = LruCache(100)
    for key in "ab":
        cache.get(key, lambda: embedding(10))
    cache.get("a", refuse)
    cache.get("c", lambda: embedding(10))
    assert cache.nbytes <= 100
    cache.get("a", refuse)
    assert cache.get("b", lambda: embedding(10))[1]


def test_an_embedding_beyond_the_budget_is_given_but_not_kept():
    cache = LruCache(10)
    assert cache.get("a", lambda: embedding(100))[1]
    assert cache.nbytes == 0


def test_two_who_ask_at_the_same_time_share_one_making():
    cache, made = LruCache(1000), []
    started, finish = threading.Event(), threading.Event()

    def slow() -> Embedding:
        made.append(1)
        started.set()
        assert finish.wait(10)
        return embedding(1)

    threads = [threading.Thread(target=cache.get, args=("a", slow)) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    finish.set()
    for thread in threads:
        thread.join(10)
    assert made == [1]


def test_a_failed_making_leaves_the_key_free():
    cache = LruCache(1000)
    with pytest.raises(RuntimeError):
        cache.get("a", lambda: (_ for _ in ()).throw(RuntimeError("out of memory")))
    assert cache.get("a", lambda: embedding(1))[1]


def test_clear_forgets_everything():
    cache = LruCache(1000)
    cache.get("a", lambda: embedding(1))
    cache.clear()
    assert cache.nbytes == 0
    assert cache.get("a", lambda: embedding(1))[1]


def test_one_beyond_the_budget_drives_nothing_else_out():
    cache = LruCache(100)
    cache.get("a", lambda: embedding(10))
    cache.get("huge", lambda: embedding(100))
    assert not cache.get("a", refuse)[1]


def test_a_hit_leaves_nothing_behind():
    cache = LruCache(100)
    for _ in range(3):
        cache.get("a", lambda: embedding(1))
    assert not cache._making
