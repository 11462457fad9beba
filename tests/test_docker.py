"""Dockerfile and compose.yaml, as far as they can be checked without Docker: their files, and the commands they run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sam3d_label.access.api_keys import ApiKeys
from sam3d_label.serving import HOST, free_port, serving
from tests.helpers.orthanc import DICOM_WEB, ORTHANC, PLUGIN

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
STAGES = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
COPIED = [
    source
    for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    for source in words.split()[:-1]
    if source != "."
]
SHIPPED = ["apps/sam3d/main.py", "apps/sam3d/lib", "apps/sam3d/page", "sam3d_label", "sample-data", "pyproject.toml"]


def is_sent(path: str) -> bool:
    """Whether .dockerignore leaves a file or a whole folder in the build context; the last rule that matches counts."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!")
            if any(parent.match(pattern) for parent in (Path(path), *Path(path).parents) if parent != Path(".")):
                sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize("source", [*COPIED, *SHIPPED, "LICENSE", "NOTICE", "README.md", ".gitignore"])
def test_what_the_images_are_built_from_exists_and_is_sent(source: str) -> None:
    assert list(ROOT.glob(source))
    assert is_sent(source)


@pytest.mark.parametrize("path", [".git", ".venv", "apps/sam3d/model/versions", "studies", ".demo", ".env"])
def test_data_and_environments_are_not_sent(path: str) -> None:
    assert not is_sent(path)


def test_no_image_runs_as_root() -> None:
    for stage in ("server", "orthanc"):
        text = DOCKERFILE[DOCKERFILE.index(f" AS {stage}") :].split("\nFROM ")[0]
        assert re.search(r"^USER (?!root|0$)\S+$", text, re.MULTILINE)


def test_services_use_stages_volumes_and_services_that_exist() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    for service in services.values():
        assert service["build"]["target"] in STAGES
        assert service.get("depends_on", {}).keys() <= services.keys()
        assert "privileged" not in service
        for volume in service.get("volumes", ()):
            assert isinstance(volume, dict) or volume.split(":")[0] in COMPOSE["volumes"]


def test_ports_are_open_on_this_machine_only() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def start(keys: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """The command of the server's image, and its environment outside a container."""
    (words,) = re.findall(r'^CMD (\["sam3d-start"\])$', DOCKERFILE, re.MULTILINE)
    assert json.loads(words) == ["sam3d-start"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return ["sh", str(ROOT / "deploy/docker-start.sh")], {
        **os.environ,
        "PATH": path,
        "SAM3D_KEYS": str(keys),
        **environment,
    }


def test_a_server_without_a_key_says_how_to_make_one(tmp_path: Path) -> None:
    command, environment = start(tmp_path / "keys.json")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "docker compose run --rm sam3d sam3d-label api-key add NAME --role admin" in done.stderr


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[str]:
    """Orthanc with the configuration of its image, in a folder and on a port of the test."""
    if ORTHANC is None or not PLUGIN.exists():
        pytest.skip("no Orthanc here: apt-get install orthanc orthanc-dicomweb")
    port, storage = free_port(), str(tmp_path / "storage")
    configuration = json.loads((ROOT / "deploy/orthanc.json").read_text(encoding="utf-8"))
    configuration |= {"HttpPort": port, "StorageDirectory": storage, "IndexDirectory": storage}
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    url = f"http://{HOST}:{port}"
    with serving([ORTHANC, str(tmp_path / "orthanc.json")], url, tmp_path / "orthanc.log", ready="/system"):
        yield url + DICOM_WEB


@pytest.mark.slow
def test_the_samples_are_served_from_the_pacs(pacs: str, tmp_path: Path) -> None:
    phantoms = sorted((ROOT / "sample-data/images").glob("phantom_*"))
    send = [sys.executable, str(ROOT / "examples/nifti_to_pacs.py"), pacs, *map(str, phantoms)]
    for _ in range(2):
        subprocess.run(send, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    series = httpx.get(f"{pacs}/series").raise_for_status().json()
    assert len(series) == len(phantoms) == 3

    port, key = free_port(), ApiKeys(tmp_path / "keys.json").add("tester", "admin")
    command, environment = start(
        tmp_path / "keys.json",
        SAM3D_STUDIES=pacs,
        SAM3D_PORT=str(port),
        MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"),
        MONAI_LABEL_AUTO_UPDATE_SCORING="false",
    )
    command += ["--conf", "model_dir", str(tmp_path / "model")]
    with serving(command, f"http://{HOST}:{port}", tmp_path / "log", environment=environment) as server:
        (check,) = re.findall(r"^HEALTHCHECK .* CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
        healthy = [word.replace(":8000/", f":{port}/") for word in json.loads(check)]
        subprocess.run([sys.executable, *healthy[1:]], check=True)
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=120) as client:
            assert client.get("/info/").json()["datastore"]["total"] == 3
            image = series[0]["0020000E"]["Value"][0]
            click = {"foreground": [[50, 50, 25]], "background": []}
            answer = client.post("/infer/sam3d", params={"image": image}, data={"params": json.dumps(click)})
            assert answer.status_code == 200, answer.text


def test_the_commands_of_the_page_are_those_of_the_files() -> None:
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^ {4}docker compose (.+)$", page, re.MULTILINE)]
    assert {"build", "run", "up"} <= {word for words in commands for word in words}
    for words in commands:
        if "run" in words:
            assert words[2] in COMPOSE["services"]
        if "--profile" in words:
            profile = words[words.index("--profile") + 1]
            assert any(profile in service.get("profiles", ()) for service in COMPOSE["services"].values())
