"""The form in which a column of text has its times, so that new ones are written alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

Form = Callable[[datetime], str]


def text_form(given: Sequence[str]) -> Form:
    """How to write times as these ISO 8601 texts are; with all there is to tell where they differ."""
    times = [datetime.fromisoformat(text.strip()) for text in given]
    for form in _forms():
        if all(form(time) == text for time, text in zip(times, given, strict=True)):
            # Another time may have what this form leaves out, an hour or a day of the week.
            return lambda time: (
                text if datetime.fromisoformat(text := form(time)) == time else time.isoformat()
            )
    return datetime.isoformat


def _forms() -> Iterator[Form]:
    yield lambda time: time.date().isoformat()
    yield lambda time: time.date().isoformat().replace("-", "")
    yield from (
        partial(_week, separator=separator, day=day) for separator in ("-", "") for day in (False, True)
    )
    for separator in ("T", " "):
        for detail in ("hours", "minutes", "seconds", "milliseconds", "microseconds", "auto"):

            def form(time: datetime, separator: str = separator, detail: str = detail) -> str:
                return time.isoformat(separator, detail)

            yield form
            yield partial(_with_z, form)


def _week(time: datetime, separator: str, *, day: bool) -> str:
    """The week of a time, `2024-W05` or `2024W05`, and its day where that is there too."""
    year, week, weekday = time.isocalendar()
    parts = [f"{year:04}", f"W{week:02}", *([str(weekday)] if day else [])]
    return separator.join(parts)


def _with_z(form: Form, time: datetime) -> str:
    return form(time).removesuffix("+00:00") + "Z"
