"""Names of a label's values, however the client writes the numbers."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sam3d_label.errors import VolumeError
from sam3d_label.studies.label_names import name_fault, name_values, require_one_name


@pytest.mark.parametrize("labels", [("tumor", "cyst"), ("cyst", "tumor")])
@pytest.mark.parametrize(
    "info",
    [
        [{"name": "cyst", "idx": 2}, {"name": "tumor", "idx": 1}],
        [{"name": "cyst", "idx": "2"}, {"name": "tumor", "idx": " 1 "}],
        [{"name": "cyst", "idx": 2.0}, {"name": "tumor", "idx": 1.0}],
        [{"name": "cyst", "id": 2}, {"name": "tumor", "id": 1}],
        [{"name": "cyst", "idx": None, "id": 2}, {"name": "tumor", "id": "1"}],
        {"cyst": 2, "tumor": 1},
        {"cyst": "2", "tumor": "1"},
    ],
)
def test_numbers_are_numbers_in_every_spelling(info: Any, labels: tuple[str, ...]) -> None:
    assert name_values([1, 2], {"label_info": info}, labels) == {1: "tumor", 2: "cyst"}


@pytest.mark.parametrize("number", ["two", 1.5, True, [1], float("nan"), "-", ""])
def test_anything_but_a_number_is_rejected(number: Any) -> None:
    with pytest.raises(VolumeError, match="label_info numbers 'cyst' as"):
        name_values([1], {"label_info": [{"name": "cyst", "idx": number}]}, ("tumor",))


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a\nb", "a\tb", "a\u202eb", "a\u2067b", "a\x00", "a\\b", "x" * 65]
)
def test_a_text_that_no_viewer_or_dicom_file_can_show_is_no_name(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["tumor", "liver lesion", "L\u00e4sion", "\u80ba", "100%", "a/b", "-x", '"x"'])
def test_any_other_text_is_a_name(name: str) -> None:
    assert name_fault(name) is None


def test_a_name_is_the_same_however_its_accents_are_encoded() -> None:
    info = {"label_info": [{"name": "Le\u0301sion", "idx": 1}]}
    assert name_values([1], info, ["L\u00e9sion"]) == {1: "L\u00e9sion"}


@pytest.mark.parametrize(
    "listed",
    [
        [{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 1}],
        [{"name": "tumor", "id": "1"}, {"name": "cyst", "idx": 1.0}],
        [{"name": "tumor"}, {"name": "cyst", "idx": 1}],
        [{"name": "tumor", "idx": 2}, {"name": "cyst"}],
        [{"name": "cyst", "idx": 3}, {"name": "tumor", "idx": 1}],
    ],
)
def test_a_value_with_two_names_is_rejected(listed: list[Any]) -> None:
    with pytest.raises(VolumeError, match=r"label_info names the value [12] '(tumor|cyst)' and '(tumor|cyst)'"):
        name_values([1, 2], {"label_info": listed}, ("tumor", "cyst"))


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ([{"name": "tumor"}, {"name": "cyst", "idx": 5}], {1: "tumor", 5: "cyst"}),
        ([{"name": "tumor", "idx": 1}, {"name": "cyst", "idx": 3}], {1: "tumor", 2: "cyst"}),
        ([{"name": "tumor", "idx": 1}, {"name": "tumor", "idx": 1}], {1: "tumor"}),
    ],
)
def test_a_place_counts_where_no_number_contradicts_it(listed: list[Any], names: dict[int, str]) -> None:
    assert name_values(list(names), {"label_info": listed}, ()) == names


def test_of_slicer_the_place_counts() -> None:
    info = {"client_id": "user-x", "label_info": [{"name": "tumor", "idx": 2}, {"name": "cyst", "idx": 3}]}
    assert name_values([1, 2], info, ()) == {1: "tumor", 2: "cyst"}
    require_one_name(info)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\u00a0b", r"U\+00A0 \(NO-BREAK SPACE\), which looks like a space"),
        ("a\u3000b", r"U\+3000 \(IDEOGRAPHIC SPACE\), which looks like a space"),
        ("a\u200db", r"U\+200D \(ZERO WIDTH JOINER\), which cannot be seen"),
        ("a\nb", r"U\+000A \(a control character\)"),
        ("a\ud800b", r"U\+D800 \(no character of Unicode\)"),
    ],
)
def test_the_character_that_is_not_accepted_is_named(name: str, reason: str) -> None:
    assert re.search(reason, name_fault(name) or "")
