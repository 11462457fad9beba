"""JSON of a client is strict JSON within limits, or an error that says what to change."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.configs.limits import RequestLimits
from lib.server.json_checks import JsonError, check_text, read_json, read_object

LIMITS = RequestLimits()


def test_what_viewers_send_is_read_as_it_is() -> None:
    sent = {"foreground": [[81, 54, 36]], "label": "Tümör 肿瘤 🫁", "note": 'a "quoted" [text], with\ttab\n', "x": None}
    assert read_json(json.dumps(sent), LIMITS) == sent
    assert read_json(json.dumps(sent, ensure_ascii=False).encode(), LIMITS) == sent
    assert read_object("", LIMITS) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "params: this is not JSON"),
        ("{'a': 1}", "not JSON"),
        ("[1] 2", "not JSON"),
        ('{"a": NaN}', "params: NaN is not JSON: send a finite number or null"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ('{"a": 1e400}', "1e400 is too large"),
        ("9" * 5000, "too large: send an integer of at most 64 bits"),
        ("9223372036854775808", "at most 64 bits"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ('"\\u0000"', r"U\+0000"),
        ('{"a\\u001b[2J": 1}', r"U\+001B"),
        ('"\\ud800"', r"U\+D800"),
        (b'"\xff"', "not encoded as UTF-8"),
        ('"' + "x" * 501 + '"', "501 characters is longer than the 500"),
        ('{"' + "x" * 501 + '": 1}', "501 characters"),
        ("[" * 17 + "]" * 17, "nested more than 16 levels"),
        ("[" * 400_000, "nested more than 16 levels"),
        ('{"a":' * 250 + "1" + "}" * 250, "nested more than 16 levels"),
        ("[" + "1," * 60_000 + "1]", "more than 50000 values"),
        (" " * (2**20 + 1), "more than the 1024 KiB"),
    ],
)
def test_what_cannot_be_stored_or_read_again_is_refused(text: Any, expected: str) -> None:
    with pytest.raises(JsonError, match=expected):
        read_json(text, LIMITS, "params")


@pytest.mark.parametrize("text", ["[1]", "7", "null", '"text"', "true"])
def test_something_else_than_an_object_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(JsonError, match=r"params must be a JSON object, such as .*me"):
        read_object(text, LIMITS, "params", '{"client_id": "me"}')


def test_brackets_in_texts_do_not_count_as_nesting() -> None:
    assert read_json(json.dumps(["[{" * 100, '\\"[[[']), LIMITS) == ["[{" * 100, '\\"[[[']


def test_a_text_that_never_ends_costs_no_more_than_its_length() -> None:
    began = time.monotonic()
    with pytest.raises(JsonError):
        read_json('"\\"' * 300_000, LIMITS)
    assert time.monotonic() - began < 5


def test_a_text_outside_json_is_checked_alike() -> None:
    assert check_text("user-anna", LIMITS, "client_id") == "user-anna"
    with pytest.raises(JsonError, match=r"client_id: .*U\+0000"):
        check_text("a\0b", LIMITS, "client_id")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_read_can_be_stored_and_read_again(value: Any) -> None:
    try:
        read = read_json(json.dumps(value), LIMITS)
    except JsonError:
        return
    assert json.loads(json.dumps(read, allow_nan=False).encode("utf-8")) == read == value


@given(st.text(alphabet='[]{}",:\\ 1aNn', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = read_json(text, LIMITS)
    except JsonError:
        return
    assert value == json.loads(text)
