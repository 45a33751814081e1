"""What the bytes of a file are, by how they begin: who gave another file than was meant is told which."""

from __future__ import annotations

import binascii
import codecs

#: Bytes at the beginning that tell text apart.
_HEAD = 512
#: Control characters, save those that text has.
_NO_TEXT = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")

#: Where the mark stands, the mark, what it says, and whether a sound may be in it.
_MARKS: tuple[tuple[int, bytes, str, bool], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", False),
    (0, b"\xff\xd8\xff", "a JPEG image", False),
    (8, b"WEBP", "a WebP image", False),
    (0, b"GIF87a", "a GIF image", False),
    (0, b"GIF89a", "a GIF image", False),
    (0, b"II*\0", "a TIFF image", False),
    (0, b"MM\0*", "a TIFF image", False),
    (0, b"II+\0", "a TIFF image", False),
    (0, b"MM\0+", "a TIFF image", False),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", False),
    (4, b"jP  \r\n", "a JPEG 2000 image", False),
    (4, b"ftypavi", "an AVIF image", False),
    (4, b"ftyphei", "a HEIF image", False),
    (4, b"ftypmif1", "a HEIF image", False),
    (0, b"8BPS", "a Photoshop file", False),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", False),
    (0, b"%PDF-", "a PDF document", False),
    (0, b"PK\x03\x04", "a ZIP archive", False),
    (0, b"\x1f\x8b", "a gzip file", False),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", False),
    (0, b"\x93NUMPY", "a NumPy array", False),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", False),
    (8, b"WAVE", "a WAV file", True),
    (8, b"AVI ", "an AVI video", True),
    (8, b"AIF", "an AIFF file", True),
    (0, b"fLaC", "a FLAC file", True),
    (0, b"OggS", "an Ogg file", True),
    (0, b"ID3", "an MP3 file", True),
    (0, b".snd", "an AU file", True),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file", True),
    (4, b"ftyp", "an MP4 file", True),
    (0, b"#!AMR", "an AMR file", True),
    (0, b"caff", "a CAF file", True),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file", True),
)


def kind_of(data: bytes) -> tuple[str | None, bool]:
    """What a file is, None where that cannot be told, and whether a decoder of sounds may read it."""
    if marked := _marked(data):
        return marked
    name = _text(data[:_HEAD])
    return name, name is None


def _marked(data: bytes) -> tuple[str, bool] | None:
    for place, mark, name, sound in _MARKS:
        if data.startswith(mark, place):
            return name, sound
    # Two letters alone say little; the sizes of the headers of bitmaps say more.
    if data.startswith(b"BM") and data[14:18] in (b"\x0c\0\0\0", b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"):
        return "a BMP image", False
    return None


def _text(head: bytes) -> str | None:
    """What kind of text it is; None where it is none."""
    if not _NO_TEXT.isdisjoint(head):
        return None
    try:
        # A character may be cut in two at the end of the head.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page"
    if start.startswith("<svg") or (start.startswith(("<?xml", "<!--")) and "<svg" in start):
        return "an SVG drawing"
    if start.startswith("<?xml"):
        return "XML"
    if start.startswith(("{", "[")):
        return "JSON"
    if start.startswith("version https://git-lfs"):
        return "a Git LFS pointer instead of the file"
    if start.startswith("data:"):
        return "a data: URL"
    return "base64 text, encoded twice" if _is_encoded(head) else "text"


def _is_encoded(head: bytes) -> bool:
    """Whether text is a file in base64."""
    packed = head.translate(None, b" \r\n")
    try:
        held = binascii.a2b_base64(packed[: len(packed) // 4 * 4], strict_mode=True)
    except binascii.Error:
        return False
    return _marked(held) is not None
