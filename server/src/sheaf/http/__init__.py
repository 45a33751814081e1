"""The one ASGI app that every host serves: the schema's routes over models in this process."""

from sheaf.http.app import create_app

__all__ = ["create_app"]
