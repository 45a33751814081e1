"""Tells from the headers of image and sound files what they are, whether they are whole and how large.

Nothing is decoded and nothing copied: the same few reads serve a client before it sends, a server before
it decodes, and the limits on pixels and samples. What a usual decoder reads is accepted, such as bytes
after the end of a file and sounds whose length the writer did not know. `clients/typescript/src/formats`
does the same; tests/contract/test_files.py holds both to one set of files.
"""

from __future__ import annotations

from sheaf_client._formats.broken import BrokenFileError
from sheaf_client._formats.images import image_size
from sheaf_client._formats.sounds import SoundSize, sound_size

__all__ = ["BrokenFileError", "SoundSize", "image_size", "sound_size"]
