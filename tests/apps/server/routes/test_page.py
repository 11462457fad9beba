"""The page at /sam3d/: what it is trainings, and what a person sees and can do in a browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from sam3d_label.model_update import learning_curve
from sam3d_label.model_update.report import UpdateReport
from sam3d_label.model_update.split_ledger import Ledger
from sam3d_label.model_update.versions import REPORT, Versions
from tests.helpers.app_helpers import serve, write_nifti
from tests.helpers.browser import browser, open_page

pytestmark = pytest.mark.slow


def measured(version: str, annotated: int, dice: float, passes: bool, reason: str) -> dict[str, Any]:
    """The report of an update, as far as page and curve read it."""
    scores = [
        {"case": f"case_{n}", "dice_1": dice + spread, "dice_3": dice + 0.05, "dice_5": dice + 0.1, "nsd_3": dice - 0.1}
        for n, spread in enumerate((-0.05, 0, 0.05))
    ]
    means = {"dice_1": dice, "dice_3": dice + 0.05, "dice_5": dice + 0.1, "nsd_3": dice - 0.1}
    return {
        "version": version,
        "at": f"2026-11-0{annotated // 5}T08:30:00+00:00",
        "annotated": annotated,
        "left_out_one_by_one": [],
        "gate": {"passes": passes, "reason": reason},
        "means": {"candidate": means, "serving": {**means, "dice_1": dice - 0.04}},
        "scores": {"candidate": scores, "serving": scores},
        "share": 0.5,
        "shares": [{"share": 0.5, "reference": means, "loss": 0.02, "validation": means}],
        "reference": {
            "digest": "0",
            "limit": 0.03,
            "baseline_version": "shipped",
            "baseline": [{"case": f"MR {number}", **dict.fromkeys(means, 0.6)} for number in range(2)],
            "scores": [{"case": f"MR {number}", **dict.fromkeys(means, 0.58)} for number in range(2)],
        },
        "skipped": {},
        "seconds": 240,
    }


@pytest.fixture(scope="module")
def model_dir(weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three trainings left: two versions that served, and one that was kept aside."""
    folder = tmp_path_factory.mktemp("page") / "model"
    versions = Versions(folder / "versions")
    trainings = [
        (5, 0.61, True, "not worse on 3 validation cases; Dice@1 0.570 → 0.610"),
        (10, 0.72, True, "not worse on 3 validation cases; Dice@1 0.680 → 0.720"),
        (15, 0.41, False, "worse on 3 validation cases known before: Dice@1 0.720 → 0.410"),
    ]
    for annotated, dice, passes, reason in trainings:
        with versions.new_version() as (version, new):
            report = measured(version, annotated, dice, passes, reason)
            for name in ("adapter.safetensors", "card.json"):
                shutil.copy(weights_path.parent / name, new / name)
            (new / REPORT).write_text(json.dumps(report))
        if passes:
            versions.publish(version, "gate")
        learning_curve.append(folder, UpdateReport.model_validate(report))
    losses = [0.62, 0.44, 0.36, 0.31, 0.29, 0.27]
    gate = {"passes": False, "reason": trainings[-1][3]}
    stats = {"stage": "done", "epoch": 6, "total_epochs": 6, "version": "0003", "gate": gate, "losses": losses}
    (folder / "train_stats.json").write_text(json.dumps(stats))
    seen = {"version": "0002", "click": [1, 2, 3], "vector": [0.5]}
    scores = {name: {**seen, "doubt": doubt} for name, doubt in (("a", 0.31), ("<i>b</i>", 0.57))}
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture(scope="module")
def url(model_dir: Path, weights_path: Path) -> Iterator[str]:
    folder = model_dir.parent
    (folder / "studies").mkdir()
    for name in ("a", "b"):
        write_nifti(folder / "studies" / f"{name}.nii.gz")
    Ledger(folder / "studies" / ".sam3d" / "ledger.json").assign({f"case_{n}": f"case_{n}" for n in range(15)})
    arguments = ["--studies", str(folder / "studies"), "--conf", "weights", str(weights_path)]
    arguments += ["--conf", "auto_train_every", "5"]
    with serve(arguments, folder) as address:
        yield address


def test_the_state_has_versions_ledger_training_and_what_is_next(url: str) -> None:
    state = httpx.get(f"{url}/sam3d/state").json()
    assert state["serving"]["version"] == "0002"
    assert [(each["version"], each["serves"], each["passes"]) for each in state["versions"]] == [
        ("0003", False, False),
        ("0002", True, True),
        ("0001", False, True),
    ]
    assert state["serving"]["before"] == "0001"
    assert all(each["against_gate"] is None for each in state["versions"])
    assert sum(state["ledger"]["counts"].values()) == 15
    assert state["training"]["every"] == 5
    assert [each["image"] for each in state["next"]] == ["a"]
    assert len(state["curve"]) == 3
    assert [row["reference_dice_5"] for row in state["curve"]] == ["0.58"] * 3
    newest = state["versions"][0]
    assert (newest["share"], newest["shares"][0]["loss"]) == (0.5, 0.02)
    assert newest["reference"]["kinds"]["MR"] == pytest.approx({"before": 0.6, "after": 0.58})


def test_files_come_as_they_are_and_unknown_ones_are_404(url: str) -> None:
    assert httpx.get(f"{url}/sam3d/learning_curve.csv").text.startswith("at,version")
    assert httpx.get(f"{url}/sam3d/learning_curve.png").content.startswith(b"\x89PNG")
    assert httpx.get(f"{url}/sam3d/versions/0001/card.json").json()["version"] == "small-1"
    unknown = httpx.get(f"{url}/sam3d/versions/0009/card.json")
    assert unknown.status_code == 400
    assert "no version 0009" in unknown.json()["detail"]


def test_a_wrong_roll_back_is_refused(url: str) -> None:
    answer = httpx.post(f"{url}/sam3d/rollback", json={"version": "../../x"})
    assert answer.status_code == 400
    assert "there is no version" in answer.json()["detail"]


@pytest.mark.parametrize(("width", "height"), [(1280, 1250), (390, 844)])
def test_the_page_fits_a_desk_and_a_phone(url: str, width: int, height: int) -> None:
    with browser() as chromium:
        page, errors = open_page(chromium, f"{url}/sam3d/#/learn", width, height)
        page.wait_for_selector("#versions tbody tr")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.getElementById('learn').scrollWidth") <= width
        assert page.locator("#curve svg circle").count() == 6
        assert page.locator("#curve svg circle[fill='var(--card)']").count() == 2, "hollow where it was rejected"
        assert "rejected candidate, kept with its report" in page.inner_text("#versions")
        assert "active version: 0002" in page.inner_text("#summary")
        assert "It starts automatically after 5 saved labels" in page.inner_text("#auto-rule")
        folder = os.environ.get("SAM3D_SCREENSHOTS")
        if folder:
            page.screenshot(path=f"{folder}/page-learn-{width}.png")
        assert errors == []


def test_a_click_rolls_back_and_the_server_follows(url: str) -> None:
    with browser() as chromium:
        page, errors = open_page(chromium, f"{url}/sam3d/#/learn")
        page.click("#rollback")
        page.click("#confirm button[value=no]")
        assert httpx.get(f"{url}/sam3d/state").json()["serving"]["version"] == "0002"
        page.click("#rollback")
        page.click("#confirm button[value=yes]")
        expect(page.locator("#summary")).to_contain_text("active version: 0001")
        assert httpx.get(f"{url}/sam3d/state").json()["serving"]["version"] == "0001"
        page.click("button[data-version='0002']")
        expect(page.locator("#confirm button[value=yes]")).to_have_text("Activate version 0002")
        expect(page.locator("#warnings li")).to_have_count(0)
        page.click("#confirm button[value=yes]")
        expect(page.locator("#summary")).to_contain_text("active version: 0002")
        assert errors == []


def test_an_annotator_sees_trainings_and_versions_but_cannot_change_them(url: str) -> None:
    def as_annotator(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "admin": False, "user": "anna"})

    with browser() as chromium:
        page, errors = open_page(chromium, "about:blank")
        page.route("**/sam3d/state", as_annotator)
        page.goto(f"{url}/sam3d/#/learn")
        expect(page.locator("#user")).to_have_text("anna")
        expect(page.locator("#train")).to_be_disabled()
        expect(page.locator("#rollback")).to_be_disabled()
        expect(page.locator("button[data-version='0001']")).to_be_disabled()
        assert errors == []


def test_a_rejected_version_is_activated_knowingly_and_shown_as_such(url: str, model_dir: Path) -> None:
    card = model_dir / "versions" / "0003" / "card.json"
    content = json.loads(card.read_text())
    card.write_text(
        json.dumps({**content, "capabilities": [each for each in content["capabilities"] if each != "no_click"]})
    )
    with browser() as chromium:
        page, errors = open_page(chromium, f"{url}/sam3d/#/learn")
        page.click("button[data-version='0003']")
        expect(page.locator("#question")).to_contain_text("Activate version 0003?")
        expect(page.locator("#warnings li")).to_have_text(
            [
                "The gate rejected it: worse on 3 validation cases known before: Dice@1 0.720 → 0.410.",
                "It cannot segment without a click, as the active weights can.",
            ]
        )
        folder = os.environ.get("SAM3D_SCREENSHOTS")
        if folder:
            page.screenshot(path=f"{folder}/page-activate.png")
        page.click("#confirm button[value=yes]")
        expect(page.locator("tr.serves")).to_contain_text("active against the gate")
        page.click("#rollback")
        expect(page.locator("#confirm button[value=yes]")).to_have_text("Roll back to version 0002")
        page.click("#confirm button[value=yes]")
        expect(page.locator("#versions")).to_contain_text("was active against the gate")
        assert errors == []
    rejected = httpx.get(f"{url}/sam3d/state").json()["versions"][0]
    assert (rejected["serves"], rejected["against_gate"]["by"]) == (False, "the page")
    assert rejected["lost"] == ["segment without a click"]
