"""The arguments of clients and calls, checked where they are given; no text shows a key or a header."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from sheaf_client._errors import ArgumentError

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
#: Seconds that a call may take at most: servers take no more.
LONGEST_TIMEOUT = 86_400.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\t\x20-\x7e]*")
_KEY = re.compile(r"[\x21-\x7e]+")
#: Headers that frame a message; another's value for them would break it.
_FRAMING = {"connection", "content-length", "host", "transfer-encoding"}


def read_base_url(given: object) -> str:
    """Where the server is: what was given, `SHEAF_BASE_URL`, or this machine; without a slash at its end."""
    name, url = "base_url", given
    if not given:
        name, url = "SHEAF_BASE_URL", os.environ.get("SHEAF_BASE_URL") or DEFAULT_BASE_URL
    if not isinstance(url, str):
        raise ArgumentError(f"{name} is text, as in {DEFAULT_BASE_URL!r}, not a {type(url).__name__}")
    url = url.strip()
    check_url(url, name)
    return url.rstrip("/")


def check_url(url: str, name: str) -> None:
    """Raise `ArgumentError` where a URL is not that of a server."""
    # Whatever stands before an `@` or in a query may be a secret, also where it is at the wrong place.
    scheme, separator, rest = re.split(r"[?#]", url)[0].rpartition("://")
    shown = f"{scheme}{separator}{rest.rpartition('@')[2]}"
    if not re.match(r"https?://", url, re.IGNORECASE):
        guess = "" if "://" in url else f"; did you mean 'http://{shown}'?"
        raise ArgumentError(f"{name} begins with 'http://' or 'https://', and {shown!r} does not{guess}")
    parts = _split(url)
    if parts is None or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        raise ArgumentError(f"{name} is no URL of a server: {shown!r}; expected one as {DEFAULT_BASE_URL!r}")
    if parts.query or parts.fragment:
        raise ArgumentError(f"{name} has a query or a fragment, which calls cannot keep: {shown!r}")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number up to 65535
    except ValueError:
        return None
    return parts


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without user and password."""
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine, which no proxy leads to."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(given: object) -> str | None:
    """An API key without the white space around it; files end in a newline. Empty is none."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise ArgumentError(f"api_key is text, not a {type(given).__name__}")
    key = given.strip()
    if key and not _KEY.fullmatch(key):
        raise ArgumentError("api_key has a character that no key has; expected visible ASCII, without spaces")
    return key or None


def key_or_environment(given: object) -> str | None:
    """The key that was given, or that of `SHEAF_API_KEY`."""
    if key := read_key(given):
        return key
    try:
        return read_key(os.environ.get("SHEAF_API_KEY"))
    except ArgumentError as error:
        raise ArgumentError(str(error).replace("api_key", "SHEAF_API_KEY")) from None


def read_timeout(given: object) -> float | None:
    """Seconds that a call may take; None for no limit."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Real):
        raise ArgumentError(f"timeout is seconds as a number, or None for no limit, not {_shown(given)}")
    seconds = float(given)
    if not 0 < seconds <= LONGEST_TIMEOUT:
        hint = "; None is no limit" if seconds > LONGEST_TIMEOUT or math.isnan(seconds) else ""
        raise ArgumentError(f"timeout is seconds above 0, at most {LONGEST_TIMEOUT:.0f}, not {given}{hint}")
    return seconds


def read_retries(given: object) -> int:
    """How often a call is tried again."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise ArgumentError(f"max_retries is a whole number from 0 on, not {_shown(given)}")
    return given


def read_answer_bytes(given: object) -> int | None:
    """Most bytes of an answer; None for no limit."""
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ArgumentError(
            f"max_answer_bytes is a whole number from 1 on, or None for no limit, not {_shown(given)}"
        )
    return given


def read_headers(given: object, name: str = "headers") -> dict[str, str]:
    """Headers by their names in lower case."""
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{name} is a mapping of text to text, not a {type(given).__name__}")
    read: dict[str, str] = {}
    for header, value in cast("Any", given).items():
        if not isinstance(header, str) or not _TOKEN.fullmatch(header):
            raise ArgumentError(f"{name}: the name of a header has letters, digits and '-'; one has others")
        if header.lower() in _FRAMING:
            raise ArgumentError(f"{name}: {header!r} is the connection's own, and cannot be set")
        if not isinstance(value, str):
            raise ArgumentError(f"{name}: the value of {header!r} is text, not a {type(value).__name__}")
        text = value.strip()
        if not _TEXT.fullmatch(text):
            raise ArgumentError(
                f"{name}: the value of {header!r} has a character that headers cannot carry; expected ASCII, "
                "without line breaks"
            )
        read[header.lower()] = text
    return read


def read_model(given: object) -> str | None:
    """The name of a deployed model; whether there is such a one, the server knows."""
    if given is not None and not isinstance(given, str):
        raise ArgumentError(f"model is the name of a deployed model, not a {type(given).__name__}")
    return given


def read_binary(given: object) -> Any:
    """When bodies go as MessagePack."""
    if given not in ("auto", "always", "never"):
        raise ArgumentError(f"binary is 'auto', 'always' or 'never', not {_shown(given)}")
    return given


def read_middleware(given: object) -> Sequence[Callable[..., Any]]:
    """Functions to call around each try."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ArgumentError(f"middleware is a list of functions, not a {type(given).__name__}")
    layers = tuple(cast("Any", given))
    for layer in layers:
        if not callable(layer):
            raise ArgumentError(f"middleware is a list of functions, and a {type(layer).__name__} is none")
    return layers


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"a {type(given).__name__}"
