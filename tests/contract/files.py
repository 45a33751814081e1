"""Files of every format, and which of their beginnings pass for whole: one record for both clients.

The sounds were written by ffmpeg 8 and are kept; images are written anew by Pillow. Run as a program this
writes `files.json`, which the tests here and in clients/typescript hold to what they find.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sheaf_client._formats import BrokenFileError, image_size, sound_size

PATH = Path(__file__).with_name("files.json")
LOOKS = {"image": image_size, "audio": sound_size}


def wav(rate: int = 16_000, frames: int = 160, channels: int = 1) -> bytes:
    """A silent WAV of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(b"\0\0" * frames * channels)
    return file.getvalue()


def fault_of(kind: str, data: bytes) -> str | None:
    """What is wrong with a file in a field of the kind."""
    try:
        LOOKS[kind](data)
    except BrokenFileError as error:
        return str(error)
    return None


def accepted(kind: str, data: bytes) -> list[list[int]]:
    """The lengths at which the beginning of a file passes, as ranges: first and last."""
    ranges: list[list[int]] = []
    for length in range(1, len(data) + 1):
        if fault_of(kind, data[:length]) is None:
            if ranges and ranges[-1][1] == length - 1:
                ranges[-1][1] = length
            else:
                ranges.append([length, length])
    return ranges


def recorded() -> Mapping[str, Any]:
    """The record: files that are whole, and others with what is said of them in each kind of field."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def whole() -> Iterator[tuple[str, str, bytes, list[list[int]]]]:
    """Each whole file: its name, its kind, itself and the lengths at which its beginnings pass."""
    for name, entry in recorded()["whole"].items():
        yield name, entry["kind"], base64.b64decode(entry["data"]), entry["accepted"]


def others() -> Iterator[tuple[str, bytes, dict[str, str | None]]]:
    """Each other file: its title, itself and what is said of it by kind."""
    for title, entry in recorded()["others"].items():
        yield title, base64.b64decode(entry["data"]), {kind: entry[kind] for kind in LOOKS}


def images() -> dict[str, bytes]:
    """Small images in the formats and variants that people send."""
    colours = np.random.default_rng(7).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(colours)
    return {
        "rgb.png": encoded(picture, "PNG"),
        "palette.png": encoded(picture.quantize(4), "PNG", optimize=True),
        "animated.png": encoded(picture, "PNG", save_all=True, append_images=[picture.rotate(180)]),
        "profile.png": encoded(picture, "PNG", icc_profile=b"p" * 300, dpi=(72, 72)),
        "baseline.jpg": encoded(picture, "JPEG"),
        "progressive.jpg": encoded(picture, "JPEG", progressive=True),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", comment=b"by hand"),
        "lossy.webp": encoded(picture, "WEBP"),
        "lossless.webp": encoded(picture, "WEBP", lossless=True),
        "animated.webp": encoded(picture, "WEBP", save_all=True, append_images=[picture.rotate(180)]),
        "profile.webp": encoded(picture, "WEBP", icc_profile=b"p" * 301),
    }


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claim(flac: bytes, frames: int) -> bytes:
    """The part of a FLAC's header that tells its length, with another one."""
    told = struct.unpack_from(">Q", flac, 18)[0]
    return struct.pack(">Q", told >> 36 << 36 | frames)


def strangers(sounds: Mapping[str, bytes]) -> dict[str, bytes]:
    """What people send by mistake, and files of these formats that are broken inside."""
    made = images()
    png, jpeg, webp, wav, flac = (
        *(made[name] for name in ("rgb.png", "baseline.jpg", "lossy.webp")),
        *(sounds[name] for name in ("pcm.wav", "flac.flac")),
    )
    picture = Image.open(io.BytesIO(png))
    # What a decoder that reads another header than we do would take for the size.
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    large = (
        b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 13_000, 13_000, 3) + bytes.fromhex("012200021101031101")
    )
    reserved = b"\xff\xf0" + struct.pack(">H", 2 + len(large)) + large
    frames = flac.index(b"\xff\xf8")
    return {
        "an HTML page": b"\n<!DOCTYPE html><html><body>404</body></html>",
        "an HTML page behind a byte-order mark": b"\xef\xbb\xbf<HTML><p>no such file</p></HTML>",
        "JSON": b'{"error": "no such file"}',
        "XML": b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
        "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "text": "Grüße aus dem Süden, und ein wenig mehr".encode() * 20,
        "text of fifteen bytes": b"no such file...",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "a data: URL": b"data:image/png;base64," + base64.b64encode(png),
        "a PNG encoded twice": base64.encodebytes(png),
        "a WAV encoded twice": base64.b64encode(wav),
        "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
        "a ZIP": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(20),
        "a gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(20),
        "a NumPy array": b"\x93NUMPY\x01\0v\0{'descr': '<f4'}",
        "a GIF": encoded(picture, "GIF"),
        "a BMP": encoded(picture, "BMP"),
        "a TIFF": encoded(picture, "TIFF"),
        "an AVIF": encoded(picture, "AVIF")[:200],
        "a JPEG 2000": encoded(picture, "JPEG2000")[:200],
        "a PNG": png,
        "a WAV": wav,
        "an Ogg": sounds["opus.ogg"],
        "an MP4": sounds["aac.m4a"],
        "bytes of no known kind": bytes(range(128, 256)) * 2,
        "a few bytes": b"\x00\x01\x02",
        "zeros": bytes(100),
        "PNG, then junk": png[:8] + bytes(range(200)),
        "JPEG, then junk": jpeg[:4] + bytes(range(200)),
        "JPEG, then zeros": jpeg[:3] + bytes(100),
        "WebP, then junk": webp[:12] + bytes(range(200)),
        "WAV, then junk": wav[:12] + bytes(range(200)),
        "FLAC, then junk": flac[:4] + bytes(range(200)),
        "EBML, then junk": sounds["opus.webm"][:4] + bytes(range(200)),
        "MP4, then junk": sounds["aac.m4a"][:8] + bytes(range(200)),
        "PNG without width": png[:16] + bytes(4) + png[20:],
        "PNG of 2^31 rows": png[:20] + b"\x80\0\0\0" + png[24:],
        "PNG of 3 bits": png[:24] + b"\x03" + png[25:],
        "PNG without pixels": png[:33] + png[-12:],
        "PNG with a chunk before its header": png[:8] + png_chunk(b"prVt", b"\0" * 13) + png[8:],
        "PNG with two headers": png[:33] + png_chunk(b"IHDR", header) + png[33:],
        "JPEG of no rows": jpeg.replace(b"\0\x11\x08\0\x05\0\x07", b"\0\x11\x08\0\0\0\x07"),
        "JPEG whose scan has no frame before it": jpeg.replace(b"\xff\xc0", b"\xff\xc4"),
        "JPEG of two frames": jpeg.replace(b"\xff\xc0", large + b"\xff\xc0"),
        "JPEG with a frame within a reserved segment": jpeg.replace(b"\xff\xda", reserved + b"\xff\xda"),
        "JPEG with an image of images": jpeg.replace(b"\xff\xda", b"\xff\xde" + large[2:] + b"\xff\xda"),
        "JPEG with junk before its segments": jpeg[:2] + b"\xff\0" + jpeg[2:],
        "a PPM": encoded(picture, "PPM"),
        "a DIB": encoded(picture, "DIB"),
        "lossy WebP without width": webp[:26] + bytes(2) + webp[28:],
        "PNG, junk behind": png + b"junk" * 9,
        "JPEG, junk behind": jpeg + b"junk" * 9,
        "JPEG, padded": jpeg[:2] + b"\xff\xff" + jpeg[2:20] + b"junk" + jpeg[20:],
        "WebP, junk behind": webp + b"junk" * 9,
        "WAV without channels": wav[:22] + bytes(2) + wav[24:],
        "WAV without a rate": wav[:24] + bytes(8) + wav[32:],
        "WAV of unknown length": wav.replace(b"data\x80\x02\0\0", b"data\xff\xff\xff\xff"),
        "WAV of length 0 in a pipe": wav.replace(b"data\x80\x02\0\0", b"data\0\0\0\0"),
        "WAV that lies": wav.replace(b"data\x80\x02\0\0", b"data\x80\x02\1\0"),
        "WAV whose sound has no format": wav.replace(b"fmt ", b"junk"),
        "FLAC without a rate": flac[:18] + bytes(3) + flac[21:],
        "FLAC without a frame": flac[:frames],
        "FLAC that says that it has no frame": flac[:18] + claim(flac, 0) + flac[26:],
        "WAV without a frame": wav.replace(b"data\x80\x02\0\0", b"data\0\0\0\0")[: wav.index(b"data") + 8],
        "WAV of less than a frame": wav.replace(b"data\x80\x02\0\0", b"data\1\0\0\0"),
        "FLAC behind a tag": b"ID3\x04\0\0\0\0\0\x05tag!!" + flac,
        "a tag longer than the file": b"ID3\x04\0\0\0\0\x7f\x7f" + bytes(50),
        "MP4 without its index": sounds["aac.m4a"].replace(b"moov", b"free"),
        "AU without a rate": sounds["au.au"][:16] + bytes(4) + sounds["au.au"][20:],
    }


def record(sounds: Mapping[str, bytes]) -> dict[str, Any]:
    """The record of these sounds, the images and what is neither."""

    def entry(kind: str, data: bytes) -> dict[str, Any]:
        text = base64.b64encode(data).decode()
        return {"kind": kind, "accepted": accepted(kind, data), "data": text}

    whole = {name: entry("image", data) for name, data in images().items()}
    whole |= {name: entry("audio", data) for name, data in sounds.items()}
    strange = {
        title: {
            **{kind: fault_of(kind, data) for kind in LOOKS},
            "data": base64.b64encode(data).decode(),
        }
        for title, data in strangers(sounds).items()
    }
    return {"whole": whole, "others": strange}


if __name__ == "__main__":
    kept = {name: data for name, kind, data, _ in whole() if kind == "audio"}
    lines = json.dumps(record(kept), indent=1, ensure_ascii=False)
    PATH.write_text(lines + "\n", encoding="utf-8")
