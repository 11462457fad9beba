"""Files for people who find, cite and extend the project: they can be read, and agree with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sam3d_label import __version__

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "sample-data/README.md"]
FORM_PARTS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def test_the_citation_names_this_release_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["version"], citation["license"]) == ("1.2.0", __version__, "Apache-2.0")
    assert [paper["url"] for paper in citation["references"]] == ["https://arxiv.org/abs/2306.13465"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize(
    "form", sorted(set((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), key=str), ids=lambda p: p.name
)
def test_issue_forms_are_complete(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert content["name"]
    assert content["description"]
    for part in content["body"]:
        assert part["type"] in FORM_PARTS
        assert part["attributes"].get("label") or part["type"] == "markdown"
    ids = [part["id"] for part in content["body"] if "id" in part]
    assert len(ids) == len(set(ids))


def test_the_badge_is_of_the_workflow_that_runs_all_checks() -> None:
    """GitHub resolves ../../actions of a file in its root to the pages of the repository's workflows."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"\.\./\.\./actions/workflows/([\w.-]+)", readme)
    assert set(names) == {"ci.yml"}
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
