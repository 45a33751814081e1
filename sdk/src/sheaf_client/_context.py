"""Keys of the contexts under which contracts are read and written in MessagePack."""

from __future__ import annotations

#: Validation context: the raw bytes of the body, by number.
BLOBS = "sheaf.blobs"
#: Serialization context: raw bytes for tensors and media, text for times.
WIRE = "sheaf.wire"
#: What stands in a decoded body for its blob of that number.
BLOB_MARK = "\x00blob:"
