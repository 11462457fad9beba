"""The table of roles."""

from __future__ import annotations

import pytest

from lib.server.access.identity import Role
from lib.server.access.roles import needed_role


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/info/", Role.ANNOTATOR),
        ("HEAD", "/info/", Role.ANNOTATOR),
        ("GET", "/info", Role.ANNOTATOR),
        ("POST", "/infer/sam3d", Role.ANNOTATOR),
        ("PUT", "/datastore/label", Role.ANNOTATOR),
        ("DELETE", "/datastore/label", Role.ADMIN),
        ("POST", "/train/sam3d", Role.ADMIN),
        ("POST", "/train", Role.ADMIN),
        ("GET", "/ohif/assets/x.png", Role.ANNOTATOR),
        ("GET", "/proxy/dicom/wado/studies", Role.ANNOTATOR),
        ("POST", "/sam3d/rollback", Role.ADMIN),
        ("GET", "/sam3d/login", Role.NOBODY),
        ("GET", "/sam3d/login/../state", Role.ADMIN),
        ("PATCH", "/info/", Role.ADMIN),
        ("GET", "/static/ohif/index.html", Role.ADMIN),
        ("POST", "/reload", Role.ADMIN),
        ("GET", "/no/such/route", Role.ADMIN),
    ],
)
def test_a_request_needs_the_role_of_its_route_and_any_other_needs_an_admin(method: str, path: str, role: Role) -> None:
    assert needed_role(method, path) == role
