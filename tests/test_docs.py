"""The commands, links, options and names in the documentation exist and work."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sam3d_label.cli.app import app
from sam3d_label.segmentation import segmenter

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts)]
COMMANDS = re.findall(r"^ {4}python -m sam3d_label (.+)$", README, re.MULTILINE)
TOO_LONG_OR_ONLINE = {"train", "fetch", "convert-reference", "convert-litemedsam", "benchmark"}
NEEDS_MORE = {"import-msd", "import-kits", "export", "replay"}
NOT_RUN = TOO_LONG_OR_ONLINE | NEEDS_MORE
PRINTS = {"versions": "no version is active"}
SOURCES = ("sam3d_label", "apps", "tests", "benchmarks", "recipes", "scripts", "deploy")
ELSEWHERE = {"/etc/nginx/conf.d/sam3d.conf"}
MAKES = {"segment": "mask.nii.gz", "evaluate": "out/summary.json", "picture": "click.png", "phantom": "phantoms/images"}


@pytest.fixture
def next_to_samples(tmp_path, monkeypatch):
    """A folder that has sample-data in it, as the repository has, with the one case that the README names."""
    for kind in ("images", "labels"):
        (tmp_path / "sample-data" / kind).mkdir(parents=True)
        name = f"sample-data/{kind}/lung_ct.nii.gz"
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_shows_every_command():
    assert {shlex.split(command)[0] for command in COMMANDS} == MAKES.keys() | PRINTS.keys() | NOT_RUN


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[0] not in NOT_RUN])
def test_commands_of_the_readme_run(command, next_to_samples):
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output
    name = command.split()[0]
    assert PRINTS[name] in result.output if name in PRINTS else (next_to_samples / MAKES[name]).exists()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[0] in NOT_RUN])
def test_the_other_commands_of_the_readme_know_their_options(command):
    name, *arguments = shlex.split(command)
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert all(option in shown.output for option in arguments if option.startswith("--"))


def test_the_python_of_the_readme_runs(next_to_samples):
    (snippet,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    result = names["result"]
    assert result.mask.dtype == np.uint8
    assert result.mask[79, 82, 22] == 1
    assert result.mask[150, 60, 30] == 0


def test_the_example_of_the_segmenter_runs(next_to_samples):
    tried = doctest.testmod(segmenter)
    assert tried.attempted > 3
    assert tried.failed == 0


def test_links_of_the_docs_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?://|#|\.\./\.\./actions/)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def test_source_files_that_the_docs_name_exist():
    files = [path.as_posix() for folder in SOURCES for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = {
        name
        for page in PAGES
        for name in re.findall(r"`([\w./-]+\.(?:py|js|sh|conf|service))[`:]", page.read_text(encoding="utf-8"))
    }
    assert [name for name in sorted(named - ELSEWHERE) if not any(file.endswith(f"/{name}") for file in files)] == []


def named(pattern: str) -> list[tuple[str, ...]]:
    """Each page and what a pattern finds in it, once."""
    return sorted({(page.name, *found) for page in PAGES for found in re.findall(pattern, page.read_text("utf-8"))})


@pytest.mark.parametrize(("page", "command", "rest"), named(r"-m sam3d_label ([a-z][a-z-]*)([^\n`|]*)"))
def test_commands_of_the_pages_exist_and_know_their_options(page, command, rest):
    words = [command, *(word for word in rest.split()[:1] if command == "versions" and word.isalpha())]
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, f"{page}: {command}"
    assert all(option in shown.output for option in OPTION.findall(rest)), f"{page}: {command}{rest}"


@pytest.mark.parametrize(("page", "script", "rest"), named(r"python ((?:scripts|benchmarks)/\w+\.py)([^\n`|]*)"))
def test_scripts_of_the_pages_exist_and_know_their_options(page, script, rest):
    source = (ROOT / script).read_text(encoding="utf-8")
    for option in OPTION.findall(rest):
        parameter = option.strip("-").replace("-", "_")  # of a function that typer makes a command of
        assert f'"{option}"' in source or f" {parameter}: " in source, f"{page}: {script} {option}"


def test_conf_keys_of_the_pages_exist():
    tree = ast.parse((ROOT / "apps/sam3d/lib/configs/app_config.py").read_text(encoding="utf-8"))
    (config,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "AppConfig"]
    keys = {node.target.id for node in config.body if isinstance(node, ast.AnnAssign)}
    for page, key, _ in named(r"--conf ([a-z]\w*) (\S)"):
        assert key in keys, f"{page}: --conf {key}"
