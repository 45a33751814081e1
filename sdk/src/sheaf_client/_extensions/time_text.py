"""The form in which a column of text has its times, so that new ones are written alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

Form = Callable[[datetime], str]


def text_form(given: Sequence[str]) -> Form:
    """How to write times as these ISO 8601 texts are; with all there is to tell where they differ."""
    times = [datetime.fromisoformat(text.strip()) for text in given]
    dates_alone = all(len(text.strip()) <= len("2024-01-31") for text in given)
    for form in _forms():
        if all(form(time) == text for time, text in zip(times, given, strict=True)):
            return lambda time: form(time) if not dates_alone or _is_midnight(time) else time.isoformat()
    return datetime.isoformat


def _forms() -> Iterator[Form]:
    yield lambda time: time.date().isoformat()
    yield lambda time: f"{time:%Y%m%d}"
    for separator in ("T", " "):
        for detail in ("minutes", "seconds", "milliseconds", "microseconds", "auto"):

            def form(time: datetime, separator: str = separator, detail: str = detail) -> str:
                return time.isoformat(separator, detail)

            yield form
            yield partial(_with_z, form)


def _with_z(form: Form, time: datetime) -> str:
    return form(time).removesuffix("+00:00") + "Z"


def _is_midnight(time: datetime) -> bool:
    return not (time.hour or time.minute or time.second or time.microsecond)
