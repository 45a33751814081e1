"""The name under which programs import the server on Modal."""

from sheaf.hosts.modal import ModalServer, default_image, requirements

__all__ = ["ModalServer", "default_image", "requirements"]
