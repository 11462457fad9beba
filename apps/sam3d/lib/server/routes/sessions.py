"""`/session/`: volumes that clients send for a while, without putting them into the datastore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol

from fastapi import APIRouter, File, HTTPException, Query, Request, UploadFile
from fastapi.responses import FileResponse, Response
from monailabel.utils.others.generic import get_mime_type
from monailabel.utils.sessions import SessionInfo

from lib.server.access.identity import Role
from lib.server.routes.form_routes import form_route
from lib.server.uploads.archives import MOST_FILES, Upload
from lib.server.uploads.sessions import OWNER, SafeSessions
from lib.server.user_shares import UserShares

MOST_FIELD_BYTES = 8192
SWITCHED_OFF = "This server has no sessions: upload the image to the datastore"


class SessionHolder(Protocol):
    """An app with sessions."""

    def sessions(self) -> SafeSessions | None:
        """Return the sessions; None if they are switched off."""


class SessionsApp(SessionHolder, Protocol):
    """The parts of `SAM3DApp` behind the routes."""

    readers: UserShares


def router(app: SessionsApp) -> APIRouter:
    """Return the routes under `/session`.

    Args:
        app: Has the sessions.
    """
    form = form_route(MOST_FIELD_BYTES, MOST_FILES, app.readers)
    routes = APIRouter(prefix="/session", tags=["Session"], route_class=form)

    @routes.put("/", summary="Create a session with an image")
    def create(
        http: Request,
        files: Annotated[list[UploadFile], File()],
        uncompress: Annotated[bool, Query()] = False,
        expiry: Annotated[int, Query()] = 0,
    ) -> dict[str, object]:
        uploads = [Upload(file.filename or "", file.file) for file in files]
        info = _sessions(app).create(uploads, expiry, uncompress, owner=_named(http))
        return {"session_id": info.name, "session_info": shown(info)}

    @routes.get("/{session_id}", summary="Find a session, or download its image", response_model=None)
    def find(
        http: Request,
        session_id: str,
        update_ts: Annotated[bool, Query()] = False,
        image: Annotated[bool, Query()] = False,
    ) -> dict[str, object] | Response:
        info = find_session(app, http, session_id, update_ts=update_ts)
        if not image:
            return shown(info)
        file = Path(info.image)
        if not file.is_file():
            raise HTTPException(400, "The image of this session is a DICOM series: it cannot be sent as one file")
        return FileResponse(file, media_type=get_mime_type(file.name), filename=file.name)

    @routes.delete("/{session_id}", summary="Remove a session")
    def remove(http: Request, session_id: str) -> dict[str, object]:
        info = find_session(app, http, session_id, update_ts=False)
        _sessions(app).remove_session(info.name)
        return shown(info)

    return routes


def find_session(app: SessionHolder, http: Request, session_id: str, update_ts: bool = True) -> SessionInfo:
    """Return a session that the sender of a request may use: their own, or one without an owner.

    Raises:
        HTTPException: 404; there is none for this user. 406; sessions are switched off.
    """
    info = _sessions(app).get_session(session_id, update_ts=update_ts)
    owner = (info.meta or {}).get(OWNER)
    identity = getattr(http.state, "identity", None)
    if owner is not None and identity is not None and identity.role < Role.ADMIN and identity.name != owner:
        raise HTTPException(404, f"Session {session_id!r} does not exist or has expired: send the image again")
    return info


def shown(info: SessionInfo) -> dict[str, object]:
    """Return the fields of a session for clients: MONAI Label's keys, without the server's paths."""
    seen = {"name": info.name, "path": info.name, "image": Path(info.image).name, "meta": {}}
    return {**seen, "create_ts": info.create_ts, "last_access_ts": info.last_access_ts, "expiry": info.expiry}


def _sessions(app: SessionHolder) -> SafeSessions:
    sessions = app.sessions()
    if sessions is None:
        raise HTTPException(406, SWITCHED_OFF)
    return sessions


def _named(http: Request) -> str | None:
    """Return the name of the user who is logged in."""
    identity = getattr(http.state, "identity", None)
    return None if identity is None or identity.anonymous else str(identity.name)
