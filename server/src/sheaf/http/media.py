"""Refuses files that ask for too much, by their headers and frames, in every media field of every contract.

A few kilobytes can ask a decoder for gigabytes. That the files are whole is the contract's own check.
"""

from __future__ import annotations

from typing import Any

from sheaf.http.limits import Limits
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError
from sheaf_client.protocol import AudioFile, ImageFile, each, image_size, pointer, sound_size


def check_media(request: BaseRequest, limits: Limits) -> None:
    """Raise `InvalidRequestError` with the place of each file that is over the limits."""
    fields = type(request).__binary__
    if not fields:
        return
    faults: list[Fault] = []

    def look(item: Any, loc: tuple[str | int, ...]) -> None:
        found = None
        if isinstance(item, ImageFile):
            found = _image_fault(item.bytes, limits)
        elif isinstance(item, AudioFile):
            found = _sound_fault(item.bytes, limits)
        if found is not None:
            faults.append(Fault(code=found[0], path=pointer(loc), message=found[1]))

    for field in fields.values():
        if field.dtype is None:
            each(getattr(request, field.name), look, (field.wire,))
    if faults:
        request_id = str(request.request_id)
        raise InvalidRequestError(
            "A file asks for more than is accepted.", errors=faults[:20], request_id=request_id
        )


def _image_fault(data: bytes, limits: Limits) -> tuple[str, str] | None:
    """The code and the message of what is too much about an image."""
    width, height = image_size(data)
    if width * height <= limits.max_pixels:
        return None
    return "too_large_media", f"The image has {width} x {height} pixels; {limits.max_pixels} are accepted."


def _sound_fault(data: bytes, limits: Limits) -> tuple[str, str] | None:
    """The code and the message of what is too much about a sound."""
    sound = sound_size(data, count=True)
    if sound is None:
        return None
    if sound.rate > limits.max_audio_rate:
        text = f"The sound's sample rate must be 1 to {limits.max_audio_rate} Hz; it is {sound.rate}."
        return "out_of_range", text
    seconds = sound.frames / sound.rate
    if seconds > limits.max_audio_seconds:
        text = f"The sound lasts {seconds:.0f} s; {limits.max_audio_seconds:g} s are accepted."
        return "too_large_media", text
    return None
