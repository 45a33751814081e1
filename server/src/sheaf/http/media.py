"""Refuses files that ask for too much, by their headers, in every media field of every contract."""

from __future__ import annotations

from typing import Any

from sheaf.http.limits import Limits
from sheaf.http.media_headers import image_size, sound_size
from sheaf_client._binary import each
from sheaf_client._faults import pointer
from sheaf_client._media import Media
from sheaf_client.contracts.base import BaseRequest
from sheaf_client.contracts.problem import Fault
from sheaf_client.errors import InvalidRequestError


def check_media(request: BaseRequest, limits: Limits) -> None:
    """Raise `InvalidRequestError` with the place of each file that is over the limits."""
    fields = type(request).__binary__
    if not fields:
        return
    faults: list[Fault] = []

    def look(item: Any, loc: tuple[str | int, ...]) -> None:
        if isinstance(item, Media) and (found := _fault(item.bytes, limits)):
            code, message = found
            faults.append(Fault(code=code, path=pointer(loc), message=message))

    for field in fields.values():
        if field.dtype is None:
            each(getattr(request, field.name), look, (field.wire,))
    if faults:
        request_id = str(request.request_id)
        raise InvalidRequestError(
            "A file asks for more than is accepted.", errors=faults[:20], request_id=request_id
        )


def _fault(data: bytes, limits: Limits) -> tuple[str, str] | None:
    """The code and the message of what is wrong with a file."""
    size = image_size(data)
    if size is not None:
        pixels = size[0] * size[1]
        if not pixels:
            return "bad_format", "The image's header says that it has no pixels."
        if pixels > limits.max_pixels:
            text = f"The image has {size[0]} x {size[1]} pixels; {limits.max_pixels} are accepted."
            return "too_large_media", text
        return None
    sound = sound_size(data)
    if sound is None:
        return None
    if not 1 <= sound.rate <= limits.max_audio_rate:
        text = f"The sound's sample rate must be 1 to {limits.max_audio_rate} Hz; it is {sound.rate}."
        return "out_of_range", text
    if sound.missing:
        return "bad_format", f"The sound's header states {sound.missing} bytes more than there are."
    seconds = sound.frames / sound.rate
    if seconds > limits.max_audio_seconds:
        text = f"The sound lasts {seconds:.0f} s; {limits.max_audio_seconds:g} s are accepted."
        return "too_large_media", text
    return None
