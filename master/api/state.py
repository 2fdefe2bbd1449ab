"""What a route finds in its application."""

from starlette.requests import Request

from master.api.auth import KnownKeys
from master.api.upload_room import UploadRoom
from master.running import Running


def running(request: Request) -> Running:
    """The master that serves this request."""
    master: Running = request.app.state.running
    return master


def ring(request: Request) -> KnownKeys:
    """The key look-up of this master."""
    keys: KnownKeys = request.app.state.ring
    return keys


def upload_room(request: Request) -> UploadRoom:
    """The room for uploads in this master."""
    room: UploadRoom = request.app.state.upload_room
    return room
