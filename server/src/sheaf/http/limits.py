"""What a server accepts from strangers, checked before anything is decoded."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sheaf.http.heads import as_origin
from sheaf.http.hosts import LOOPBACK, as_host, is_loopback
from sheaf.settings import read_yaml, validated


class Limits(BaseModel):
    """What a server accepts. Sizes in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_body: int = Field(
        default=32 * 2**20, gt=0, description="Most bytes of a body, as sent and when decompressed."
    )
    max_memory: int = Field(
        default=2**29,
        gt=0,
        description="Most bytes of memory that all requests hold at once until they are answered, by what "
        "becomes of their bodies and by the answers to come; six times `max_body` where that is more. "
        "One request may hold three quarters of it, all of a key (without keys of an address) half.",
    )
    max_ratio: float = Field(
        default=200.0, ge=1, description="A body may be this many times larger than what was sent of it."
    )
    max_depth: int = Field(
        default=64, gt=0, description="Most lists and objects inside each other in a body."
    )
    max_batch: int = Field(default=1024, gt=0, description="Most requests in one `/batch`.")
    max_pixels: int = Field(
        default=64_000_000, gt=0, description="Most pixels of one image: width x height, by its header."
    )
    max_audio_seconds: float = Field(default=3600.0, gt=0, description="Longest sound, by its header.")
    max_audio_rate: int = Field(
        default=768_000, gt=0, description="Most samples in a second of sound, by its header."
    )
    max_head: int = Field(
        default=32 * 2**10,
        gt=0,
        description="Most bytes of a request's head; the embedded server alone reads heads.",
    )
    max_headers: int = Field(default=100, gt=0, description="Most lines of a request's head.")
    head_timeout: float = Field(
        default=15.0,
        gt=0,
        description="Longest a request's head may take to arrive, and a body after an answer that did not "
        "wait for it.",
    )
    idle_timeout: float = Field(default=10.0, gt=0, description="Longest pause within a body.")
    body_timeout: float = Field(
        default=30.0,
        gt=0,
        description="Longest a body may take, besides the time of its bytes at `min_rate`, of which no more "
        "than `idle_timeout` can be earned ahead.",
    )
    min_rate: int = Field(
        default=8 * 2**10,
        gt=0,
        description="Bytes per second that a client must send, and take of an answer.",
    )
    write_timeout: float = Field(
        default=30.0, gt=0, description="Longest a client may take nothing of an answer that is ready."
    )
    timeout: float | None = Field(
        default=None, gt=0, description="Longest a request may take that names no deadline of its own."
    )
    drain_timeout: float = Field(
        default=10.0,
        ge=0,
        description="Longest that a server which was told to end answers what it has accepted; the rest is "
        "refused then.",
    )
    change_timeout: float = Field(
        default=1800.0, gt=0, description="Longest that an admin's change of a model may take."
    )
    keep_alive: int = Field(
        default=15,
        gt=0,
        description="Pause after which a silent stream sends a comment, so that proxies keep it open.",
    )
    origins: tuple[str, ...] = Field(
        default=(),
        description="Origins whose pages may call this server from a browser, such as "
        "`https://app.example.org`; `*` for all.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names under which this server may be asked, such as `models.example.org`, "
        "`*.example.org` or `10.0.0.0/8`; `*` for all. A server on a loopback address has its own besides; "
        "another answers to all where none are given.",
    )

    def at(self, host: str) -> Limits:
        """The same for a server that listens there: on a loopback address, it has names of this machine."""
        if not is_loopback(host):
            return self
        return self.model_copy(update={"allowed_hosts": (*LOOPBACK, *self.allowed_hosts)})

    @field_validator("allowed_hosts")
    @classmethod
    def _as_they_are_compared(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_host(host) for host in hosts)

    @field_validator("origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(as_origin(origin) for origin in origins)


def read_limits(path: Path) -> Limits | None:
    """The `limits` of a YAML or JSON file; None where it has none. Raises `ValueError` with the place."""
    content = read_yaml(path)
    if not isinstance(content, dict) or "limits" not in content:
        return None
    return validated(Limits, content["limits"], f"{path}: limits")
