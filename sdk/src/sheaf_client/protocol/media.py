"""Reading of pictures, sound and video that backends share with the client's own arrays."""

from __future__ import annotations

from sheaf_client._decoding.ffmpeg import opened
from sheaf_client._decoding.images import MAX_PIXELS, Mode, decode_image, decode_pixels, seen_size
from sheaf_client._decoding.sounds import SoundLimits, of_one_width, open_sound
from sheaf_client._formats import BrokenFileError
from sheaf_client._inputs.media import wav_bytes

__all__ = [
    "MAX_PIXELS",
    "BrokenFileError",
    "Mode",
    "SoundLimits",
    "decode_image",
    "decode_pixels",
    "of_one_width",
    "open_sound",
    "opened",
    "seen_size",
    "wav_bytes",
]
