"""What a server of Sheaf's contracts needs of this package, and nothing that only clients need.

The contracts are in `sheaf_client.contracts`, the operations in `sheaf_client.operations`, the errors in
`sheaf_client.errors`; here is what reads and writes their bodies:

* contracts and operations as such: `Model`, `Operation`, `ResultEvent`;
* bodies: `read_text` (JSON), `unpack`, `validate_unpacked`, `pack` (MessagePack), `WIRE`, `MSGPACK_TYPE`;
* what is wrong with one: `invalid_request`, `pointer`, `MAX_TEXT`;
* tensors and files in one: `binary_size`, `each`, `holders`, `AudioFile`, `ImageFile`, `image_size`,
  `sound_size`;
* waits of threads that Ctrl-C ends: `wait_awake`.

`protocol.atoms`, `protocol.calendar` and `protocol.media` have what backends share with the client about
structures, times and files.
The server's package asks for exactly this version of this one, so these names may change with any release.
"""

from __future__ import annotations

from sheaf_client._base import Model
from sheaf_client._binary_fields import each
from sheaf_client._bounded import read_text
from sheaf_client._context import WIRE
from sheaf_client._faults import MAX_TEXT, invalid_request, pointer
from sheaf_client._formats import image_size, sound_size
from sheaf_client._media import AudioFile, ImageFile
from sheaf_client._msgpack import MSGPACK_TYPE, binary_size, holders, pack, unpack, validate_unpacked
from sheaf_client._operation import Operation
from sheaf_client._streaming import ResultEvent
from sheaf_client._waiting import wait_awake

__all__ = [
    "MAX_TEXT",
    "MSGPACK_TYPE",
    "WIRE",
    "AudioFile",
    "ImageFile",
    "Model",
    "Operation",
    "ResultEvent",
    "binary_size",
    "each",
    "holders",
    "image_size",
    "invalid_request",
    "pack",
    "pointer",
    "read_text",
    "sound_size",
    "unpack",
    "validate_unpacked",
    "wait_awake",
]
