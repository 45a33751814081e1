"""What a server accepts from strangers, checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server accepts. Sizes in bytes, times in seconds."""

    #: Most bytes of a body, as sent and when decompressed.
    max_body: int = 32 * 2**20
    #: Most lists and objects inside each other in a body.
    max_depth: int = 64
    #: Most requests in one `/batch`.
    max_batch: int = 1024
    #: Most pixels of one image: width x height, by its header.
    max_pixels: int = 64_000_000
    #: Longest sound, by its header.
    max_audio_seconds: float = 3600.0
    #: Most bytes and lines of a request's head; the embedded server alone reads heads.
    max_head: int = 32 * 2**10
    max_headers: int = 100
    #: Longest a request's head may take to arrive, and a body after an answer that did not wait for it.
    head_timeout: float = 15.0
    #: Longest pause within a body.
    idle_timeout: float = 10.0
    #: Longest a body may take, besides the time its bytes take at `min_rate`.
    body_timeout: float = 30.0
    #: Bytes per second that a client must send, and take of an answer.
    min_rate: int = 8 * 2**10
    #: Longest a client may take nothing of an answer that is ready.
    write_timeout: float = 30.0
    #: Longest a request may take that names no deadline of its own.
    timeout: float | None = None
    #: Pause after which a silent stream sends a comment, so that proxies keep it open.
    keep_alive: int = 15
    #: Origins whose pages may call this server from a browser, such as `https://app.example.org`; none.
    origins: tuple[str, ...] = ()
