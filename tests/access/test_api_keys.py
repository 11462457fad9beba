"""The file of API keys, and the commands that change it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sam3d_label.access.api_keys import ApiKeyError, ApiKeys
from sam3d_label.cli.app import app


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "keys.json")


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["api-key", *arguments], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_found_by_its_whole_text_only(keys: ApiKeys) -> None:
    key = keys.add("anna", "annotator")
    found = keys.find(key)
    assert found is not None
    assert (found.name, found.role) == ("anna", "annotator")
    wrong = (key[:-1] + ("A" if key[-1] != "A" else "B"), key + "x", key.upper(), key[6:], "", "sam3d_", "ä" * 70)
    assert [keys.find(guess) for guess in wrong] == [None] * len(wrong)


def test_the_file_has_no_key_and_only_its_owner_can_read_it(keys: ApiKeys) -> None:
    key = keys.add("anna", "admin")
    assert key.split("_", 2)[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o777 == 0o600


def test_two_keys_have_different_salts(keys: ApiKeys) -> None:
    keys.add("anna", "admin")
    keys.add("ben", "annotator")
    first, second = keys.all()
    assert first.salt != second.salt


def test_a_revoked_key_is_refused_by_a_server_that_is_running(keys: ApiKeys) -> None:
    running = ApiKeys(keys.path)
    key = keys.add("anna", "admin")
    assert running.find(key)
    keys.revoke("anna")
    assert running.find(key) is None


def test_a_name_can_be_used_once(keys: ApiKeys) -> None:
    keys.add("anna", "admin")
    with pytest.raises(ApiKeyError, match="revoke it first"):
        keys.add("anna", "annotator")
    assert [key.name for key in keys.all()] == ["anna"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a" * 65, "a\n"])
def test_a_name_that_logs_could_not_show_is_rejected(keys: ApiKeys, name: str) -> None:
    with pytest.raises(ApiKeyError, match="is not a name"):
        keys.add(name, "admin")
    assert not keys.path.exists()


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_a_file_that_others_can_read_or_write_is_rejected(keys: ApiKeys) -> None:
    keys.add("anna", "admin")
    keys.path.chmod(0o620)
    with pytest.raises(ApiKeyError, match="chmod 600"):
        ApiKeys(keys.path).all()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "keys": []}', '{"keys": [{"name": "x"}]}'])
def test_a_damaged_file_is_rejected_with_the_way_out(keys: ApiKeys, content: str) -> None:
    keys.path.write_text(content)
    keys.path.chmod(0o600)
    with pytest.raises(ApiKeyError, match="restore it from a backup"):
        keys.all()


def test_the_commands_make_list_and_revoke_a_key(tmp_path: Path) -> None:
    file = str(tmp_path / "keys.json")
    key = command("add", "anna", "--role", "annotator", "--file", file).strip()
    assert ApiKeys(Path(file)).find(key)
    listed = command("list", "--file", file)
    assert "anna" in listed
    assert key not in listed
    command("revoke", "anna", "--file", file)
    assert json.loads(Path(file).read_text())["keys"] == []


def test_a_missing_file_is_reported_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyError, match="api-key add"):
        ApiKeys(tmp_path / "none.json").all()
