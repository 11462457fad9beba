"""The server behind nginx with deploy/nginx.conf, as docs/how-to/operations.md describes it; and what the logs hold."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import pytest

from sam3d_label.access.api_keys import ApiKeys
from sam3d_label.serving import free_port
from tests.helpers.app_helpers import APP, CENTRE, ball, orthogonal, post, serve, wait, write_nifti

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
NAME = "sam3d.example.org"
PATIENT = "Mueller_Hans_19540312"
LABEL = "Metastasis of Hans Mueller"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed: make viewers"),
]


@dataclass(frozen=True)
class Site:
    """A server behind nginx.

    Attributes:
        https: Port of nginx.
        http: Port where nginx redirects to HTTPS.
        direct: Address of the server itself.
        certificate: nginx's.
        key: API key of an annotator.
        admin: API key of an admin.
        logs: Output of the server, and nginx's logs.
    """

    https: int
    http: int
    direct: str
    certificate: Path
    key: str
    admin: str
    logs: Path

    def client(self, key: str | None) -> httpx.Client:
        """A client that finds the name of the certificate at the address of this machine."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        headers = {"Host": f"{NAME}:{self.https}"} | ({"Authorization": f"Bearer {key}"} if key else {})
        hooks = {"request": [lambda request: request.extensions.update(sni_hostname=NAME)]}
        url = f"https://127.0.0.1:{self.https}"
        return httpx.Client(base_url=url, verify=context, headers=headers, event_hooks=hooks, timeout=120)


@pytest.fixture(scope="module")
def site(weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    studies, logs = folder / "studies", folder / "logs"
    studies.mkdir()
    logs.mkdir()
    write_nifti(studies / f"{PATIENT}.nii.gz")
    keys = ApiKeys(folder / "keys.json")
    key, admin = keys.add("anna", "annotator"), keys.add("root", "admin")
    arguments = ["--studies", str(studies)]
    for name, value in {
        "weights": str(weights_path),
        "api_keys": str(folder / "keys.json"),
        "allowed_hosts": NAME,
        "trusted_proxies": "127.0.0.1",
        "max_upload_mb": "2",
    }.items():
        arguments += ["--conf", name, value]
    with serve(arguments, folder, log=logs / "server") as url:
        https, http = free_port(), free_port()
        certificate = make_certificate(folder)
        with nginx(folder, logs, {"https": https, "http": http, "server": int(url.rpartition(":")[2])}):
            yield Site(https, http, url, certificate, key, admin, logs)


def make_certificate(folder: Path) -> Path:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(folder / "key.pem"), "-out"]
    subprocess.run([*command, str(folder / "cert.pem")], check=True, capture_output=True)
    return folder / "cert.pem"


@contextmanager
def nginx(folder: Path, logs: Path, ports: dict[str, int], file: str = "nginx.conf") -> Iterator[None]:
    """Runs nginx with a shipped file; only ports and paths are replaced."""
    text = (APP.parents[1] / "deploy" / file).read_text()
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{ports['https']}",
        "listen 80 ": f"listen 127.0.0.1:{ports['http']} ",
        "server 127.0.0.1:8000": f"server 127.0.0.1:{ports['server']}",
        "/etc/ssl/certs/sam3d.pem": str(folder / "cert.pem"),
        "/etc/ssl/private/sam3d.key": str(folder / "key.pem"),
        "/var/log/nginx": str(logs),
        "client_max_body_size 2060m": "client_max_body_size 4m",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    scratch = "".join(
        f"{kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'nginx.pid'};\nevents {{}}\nhttp {{\n{scratch}{text}\n}}\n"
    )
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(logs / "start")]
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{ports['http']}"
        wait(lambda: process.poll() is not None or answers(url), "nginx does not answer", 20)
        assert process.poll() is None, (logs / "start").read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 301
    except httpx.TransportError:
        return False


def logged(site: Site, request_id: str) -> list[dict[str, Any]]:
    lines = (site.logs / "server").read_text(errors="replace").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if line.get("request_id") == request_id]


def test_a_click_goes_through_and_nginx_and_server_log_it_under_one_id(site: Site) -> None:
    with site.client(site.key) as http:
        answer = post(http, PATIENT, query={"output": "image"}, foreground=[CENTRE])
    assert answer.status_code == 200, answer.text
    found = wait(lambda: logged(site, answer.headers["X-Request-ID"]), "the request is not in the log", 20)
    (line,) = [line for line in found if line.get("event") == "request"]
    assert (line["route"], line["status"], line["role"]) == ("/infer/{model}", 200, "annotator")
    assert answer.headers["X-Request-ID"] in (site.logs / "sam3d.log").read_text()
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")


def test_without_a_key_nothing_but_the_login_answers(site: Site) -> None:
    with site.client(None) as http:
        assert http.get("/info/").status_code == 401
        assert http.get("/datastore/", params={"output": "all"}).status_code == 401
        assert http.get("/sam3d/health").status_code == 200
        login = http.get("/sam3d/", headers={"Accept": "text/html"})
        assert login.status_code in (302, 303, 307)
        assert login.headers["Location"].startswith("/sam3d/login")


def test_plain_http_is_redirected_and_other_names_get_no_answer(site: Site) -> None:
    redirect = httpx.get(f"http://127.0.0.1:{site.http}/info/", headers={"Host": NAME})
    assert (redirect.status_code, redirect.headers["Location"]) == (301, f"https://{NAME}/info/")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(httpx.ConnectError), httpx.Client(verify=context) as http:
        http.get(f"https://localhost:{site.https}/info/")
    with site.client(site.key) as http, pytest.raises(httpx.RemoteProtocolError):
        http.get("/info/", headers={"Host": "evil.example"})


def test_pages_of_the_same_origin_may_change_things_and_those_of_others_may_not(site: Site) -> None:
    volume = nib.Nifti1Image(ball(), orthogonal()).to_bytes()
    with site.client(site.key) as http:
        for origin, status in ((f"https://{NAME}:{site.https}", 200), ("https://evil.example", 403), ("null", 403)):
            files = {"files": ("session.nii", volume)}
            answer = http.put("/session/", files=files, headers={"Origin": origin})
            assert answer.status_code == status, answer.text
            if status == 200:
                assert http.delete(f"/session/{answer.json()['session_id']}").status_code == 200


def test_an_upload_above_the_server_s_limit_is_answered_by_the_server_and_a_larger_one_by_nginx(site: Site) -> None:
    with site.client(site.key) as http:
        for megabytes, by_server in ((3, True), (5, False)):
            answer = http.put("/session/", files={"files": ("big.nii", bytes(megabytes * 2**20))})
            assert answer.status_code == 413
            assert (answer.headers["Content-Type"] == "application/json") is by_server


def test_the_address_of_the_client_and_the_scheme_cannot_be_forged(site: Site) -> None:
    forged = {"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Proto": "http", "Forwarded": "for=10.9.8.7"}
    with site.client(None) as http:
        answer = http.get("/sam3d/", headers={"Accept": "text/html", **forged})
        assert "http://" not in answer.headers["Location"]
        key = {"username": "anna", "password": site.key}
        answer = http.post("/auth/token", data=key, headers=forged)
        assert answer.status_code == 200, answer.text


def test_metrics_need_the_key_of_an_admin(site: Site) -> None:
    for key, status in ((None, 401), (site.key, 403), (site.admin, 200)):
        with site.client(key) as http:
            assert http.get("/sam3d/metrics").status_code == status


def test_no_log_names_the_patient_the_label_a_file_or_a_key(site: Site) -> None:
    volume = next(site.logs.parent.joinpath("studies").glob("*.nii.gz"))
    with site.client(site.key) as http:
        mask = post(http, PATIENT, query={"output": "image"}, foreground=[CENTRE])
        info = json.dumps({"label_info": [{"name": LABEL, "idx": 1}]})
        files = {"label": (f"{PATIENT}.nii.gz", mask.content)}
        http.put("/datastore/label", params={"image": PATIENT}, files=files, data={"params": info}).raise_for_status()
        post(http, f"{PATIENT}_other", foreground=[CENTRE])
        post(http, PATIENT, foreground=[[9999, 0, 0]])
        http.get("/datastore/label", params={"label": PATIENT, "tag": "final"}).raise_for_status()
        http.get("/datastore/image/info", params={"image": PATIENT})
        http.put("/datastore/image/info", params={"image": PATIENT}, data={"info": json.dumps({"who": PATIENT})})
        http.put("/datastore/label", params={"image": PATIENT}, files={"label": (f"{PATIENT}.nrrd", b"NRRD0004 no")})
        http.put("/datastore/", params={"image": f"{PATIENT}_2"}, files={"file": (f"{PATIENT}_2.nii.gz", b"broken")})
        http.put("/session/", files={"files": (f"{PATIENT}.nii.gz", volume.read_bytes())}).raise_for_status()
        http.post("/activelearning/first", json={"client_id": PATIENT})
        http.get(f"/nowhere/{PATIENT}")
        http.get("/info/", headers={"X-Request-ID": PATIENT, "Authorization": f"Bearer wrong-{site.key}"})
    with site.client(site.admin) as http:
        http.delete("/datastore/label", params={"id": PATIENT, "tag": "final"})
    application = APP / "logs" / "app.log"
    for log in (*site.logs.iterdir(), application):
        written = log.read_text(errors="replace")
        for secret in (PATIENT, LABEL, "Mueller", site.key, site.admin):
            assert secret not in written, (log, [line for line in written.splitlines() if secret in line][:3])
    shown = httpx.get(f"{site.direct}/logs/", headers={"Authorization": f"Bearer {site.admin}"}).text
    assert '"event": "request"' in shown
    assert PATIENT not in shown


@pytest.fixture(scope="module")
def prefixed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same server behind nginx with a path prefix."""
    folder = tmp_path_factory.mktemp("prefixed")
    https, http = free_port(), free_port()
    certificate = make_certificate(folder)
    ports = {"https": https, "http": http, "server": int(site.direct.rpartition(":")[2])}
    with nginx(folder, folder, ports, "nginx-prefix.conf"):
        yield Site(https, http, site.direct, certificate, site.key, site.admin, site.logs)


def test_a_server_behind_a_path_prefix_is_used_like_any_other(prefixed: Site) -> None:
    with prefixed.client(prefixed.key) as http:
        http.base_url = http.base_url.join("/sam3d-server/")
        assert post(http, PATIENT, query={"output": "image"}, foreground=[CENTRE]).status_code == 200
        assert http.get("sam3d/metrics").status_code == 403
        without_slash = f"https://127.0.0.1:{prefixed.https}/sam3d-server"
        assert http.get(without_slash).headers["location"] == f"https://{NAME}:{prefixed.https}/sam3d-server/"
        assert http.get("info").headers["location"] == f"https://{NAME}:{prefixed.https}/sam3d-server/info/"
    with prefixed.client(prefixed.admin) as http:
        assert http.get("/sam3d-server/sam3d/metrics").status_code == 200
        assert http.get("/info/").status_code == 404


def test_pages_cookies_and_ohif_stay_behind_the_path_prefix(prefixed: Site) -> None:
    with prefixed.client(None) as http:
        to_login = http.get("/sam3d-server/ohif/", headers={"Accept": "text/html"})
        assert to_login.headers["location"] == "/sam3d-server/sam3d/login?next=%2Fsam3d-server%2Fohif%2F"
        form = {"name": "anna", "key": prefixed.key, "next": "/sam3d-server/ohif/"}
        answer = http.post("/sam3d-server/sam3d/login", data=form)
        assert answer.headers["location"] == "/sam3d-server/ohif/"
        assert "path=/sam3d-server;" in f"{answer.headers['set-cookie'].lower()};"
        page = http.get("/sam3d-server/ohif/")
        assert page.status_code == 200
        assert '"/ohif/' not in page.text
        assert http.get("/sam3d-server/sam3d/state").status_code == 200
        for path in ("sam3d/training", f"sam3d/progress?model=sam3d_auto&image={PATIENT}"):
            assert http.get(f"/sam3d-server/{path}").status_code == 200, path
        assert http.get(f"/sam3d-server/datastore/segmentation?image={PATIENT}").status_code in (200, 204)
