"""A case is assigned to a split once."""

from __future__ import annotations

import json

import pytest

from sam3d_label.errors import Sam3dError
from sam3d_label.model_update.split_ledger import Ledger


def singletons(*cases):
    return {case: case for case in cases}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "studies" / "ledger.json"


def test_a_case_keeps_its_side_whatever_happens_to_the_share(path):
    cases = singletons(*(f"case_{n}" for n in range(40)))
    assigned = Ledger(path, share=0.5).assign(cases)
    assert set(assigned.values()) == {"train", "validation"}
    assert Ledger(path, share=0.0).assign(cases) == assigned
    later = Ledger(path, share=0.99).assign(cases | singletons("new"))
    assert {case: later[case] for case in assigned} == assigned


def test_about_the_share_validates(path):
    assigned = Ledger(path).assign(singletons(*(f"case_{n}" for n in range(300))))
    assert 35 <= list(assigned.values()).count("validation") <= 85
    assert set(Ledger(share=0).assign(singletons("a", "b")).values()) == {"train"}


def test_the_first_case_trains(tmp_path):
    for attempt in range(20):
        assert Ledger(tmp_path / f"{attempt}.json", share=0.9).assign(singletons("a", "b", "c"))["a"] == "train"


def test_cases_of_one_patient_share_a_side(path):
    ledger = Ledger(path, share=0.5)
    for patient in range(20):
        first = ledger.assign({f"{patient}_mr": f"patient {patient}"})
        second = ledger.assign({f"{patient}_ct": f"patient {patient}"})
        assert set(first.values()) == set(second.values())


def test_a_patient_stays_together_when_the_share_changes(path):
    cases = {f"{patient}_mr": str(patient) for patient in range(20)}
    assigned = Ledger(path, share=0.0).assign(cases)
    later = Ledger(path, share=0.99).assign({f"{patient}_ct": str(patient) for patient in range(20)})
    assert set(assigned.values()) == set(later.values()) == {"train"}


def test_the_salt_makes_sides_unpredictable(tmp_path):
    cases = singletons(*(f"case_{n}" for n in range(60)))
    assert Ledger(tmp_path / "a.json").assign(cases) != Ledger(tmp_path / "b.json").assign(cases)
    assert Ledger().assign(cases) == Ledger().assign(cases)


def test_the_digest_follows_the_sides(path):
    ledger = Ledger(path)
    empty = ledger.digest
    ledger.assign(singletons("a"))
    assert ledger.digest != empty
    assert Ledger(path).digest == ledger.digest


def test_a_damaged_ledger_is_not_replaced(path):
    Ledger(path).assign(singletons("a"))
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(Sam3dError, match="restore it from a backup"):
        Ledger(path)
    assert path.read_text() == whole[: len(whole) // 2]


def test_the_file_says_when_and_with_whom(path):
    Ledger(path).assign({"a": "patient 1"})
    entry = json.loads(path.read_text())["cases"]["a"]
    assert entry["group"] == "patient 1"
    assert entry["side"] in ("train", "validation")
    assert entry["since"].startswith("20")


def test_a_ledger_that_cannot_be_written_reports_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Sam3dError, match="cannot be written"):
        Ledger(tmp_path / "file" / "ledger.json").assign(singletons("a"))
