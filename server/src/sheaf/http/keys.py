"""Who may call a server: API keys as hashes with what each allows, the admin's key, and what is open to all.

A server without keys is open. Where keys are given, everything but `/health` and `/ready` needs one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sheaf.settings import read_yaml, validated
from sheaf.spec import ModelSpec

KEYS_VARIABLE = "SHEAF_API_KEYS"
ADMIN_VARIABLE = "SHEAF_ADMIN_KEY"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


#: A SHA-256 in hexadecimal digits, of either case as it is given.
Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), BeforeValidator(_lowered)]


class ApiKey(BaseModel):
    """One key: the hash of its secret, and what its bearer may ask for."""

    # Errors go to logs, and what stands in the place of a hash may be the key itself.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Who bears it; also the tenant whose share of the model's time it is.",
    )
    sha256: Digest = Field(description="SHA-256 of the key, in lower-case hexadecimal digits.")
    models: tuple[str, ...] | None = Field(default=None, description="Models it may call; all by default.")
    requests_per_minute: float | None = Field(
        default=None, gt=0, le=1e9, description="Requests it may send on average; a batch counts its items."
    )
    burst: int | None = Field(
        default=None,
        gt=0,
        description="Requests it may send at once; the sixth part of a minute's by default.",
    )
    concurrent: int | None = Field(default=None, gt=0, description="Calls that may be open at once.")
    requests_per_day: int | None = Field(default=None, gt=0, description="Requests in a day (UTC).")
    device_seconds_per_day: float | None = Field(
        default=None, gt=0, description="Seconds of the model's time in a day (UTC), as answers state them."
    )
    weight: float = Field(
        default=1.0, gt=0, le=1e6, description="Share of a model's time relative to other keys."
    )
    max_priority: int = Field(
        default=0, ge=-10, le=10, description="Highest urgency that it may ask for; more is lowered to it."
    )


class Access(BaseModel):
    """Who may do what. The default lets everybody call every model, and nobody change them."""

    # Errors go to logs, and what stands in the place of a hash may be the key itself.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[ApiKey, ...] = Field(default=(), description="Keys; with any, callers need one.")
    admin: Digest | None = Field(
        default=None, description="SHA-256 of the key for `/admin`; without one it is not there."
    )
    open_docs: bool = Field(
        default=False, description="`/docs` and `/openapi.json`, which name the models, need no key."
    )
    open_metrics: bool = Field(default=False, description="`/metrics` needs no key.")
    open_models: bool = Field(default=False, description="`/models` needs no key.")
    max_priority: int = Field(
        default=0,
        ge=-10,
        le=10,
        description="Highest urgency that callers may ask for where there are no keys.",
    )

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        for what, values in (("name", [k.name for k in keys]), ("hash", [k.sha256 for k in keys])):
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have one {what}")
        return keys

    @classmethod
    def from_environment(cls, given: Access | None = None) -> Self:
        """What `SHEAF_API_KEYS` and `SHEAF_ADMIN_KEY` say; `given` where they say nothing.

        `SHEAF_API_KEYS` is the path of a YAML or JSON file, or `name:hash,name:hash`. `SHEAF_ADMIN_KEY` is
        the key, or its hash. A variable that is set and holds no key is a `ValueError`: it must not open
        a server.
        """
        changes: dict[str, Any] = {}
        if (text := os.environ.get(KEYS_VARIABLE)) is not None:
            read = _from_text(text)
            if not read.keys:
                raise ValueError(f"{KEYS_VARIABLE} is set and names no keys")
            changes = {name: getattr(read, name) for name in read.model_fields_set}
        if (secret := os.environ.get(ADMIN_VARIABLE)) is not None:
            if not secret:
                raise ValueError(f"{ADMIN_VARIABLE} is set and empty")
            changes["admin"] = secret.lower() if _SHA256.fullmatch(secret.lower()) else hash_of(secret)
        known = {} if given is None else {name: getattr(given, name) for name in given.model_fields_set}
        return cls(**{**known, **changes})

    def find(self, secret: str) -> ApiKey | None:
        """The key of that secret. Every key is compared, so that the time taken tells nothing of them."""
        digest = hash_of(secret)
        found: ApiKey | None = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def is_admin(self, secret: str) -> bool:
        """Whether the secret is the admin's."""
        return hmac.compare_digest(self.admin or "", hash_of(secret))

    def weigh(self, spec: ModelSpec) -> ModelSpec:
        """The spec with the keys' weights as its tenants'; weights that it names itself stand."""
        weights = {key.name: key.weight for key in self.keys if key.weight != 1.0}
        policy = spec.batch_policy
        if not weights:
            return spec
        weighed = policy.model_copy(update={"tenant_weights": {**weights, **policy.tenant_weights}})
        return spec.model_copy(update={"batch_policy": weighed})


def hash_of(secret: str) -> str:
    """SHA-256 of a key in hexadecimal digits. Keys are random and long, so no slow hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """A new random key of 256 bits."""
    return f"sheaf_{secrets.token_urlsafe(32)}"


def read_access(path: Path) -> Access | None:
    """The `access` of a YAML or JSON file; None where it has none. Raises `ValueError` for a wrong one."""
    content = read_yaml(path)
    if not isinstance(content, Mapping) or "access" not in content:
        return None
    return _parse(cast("Mapping[str, Any]", content)["access"], f"{path}: access")


def _from_text(text: str) -> Access:
    """What `SHEAF_API_KEYS` says: a file, whose top is `access` or its members, or pairs."""
    pairs = [part.strip().partition(":") for part in text.split(",") if part.strip()]
    if pairs and all(_SHA256.fullmatch(digest.strip().lower()) for _, _, digest in pairs):
        return _parse(
            [{"name": name.strip(), "sha256": digest.strip()} for name, _, digest in pairs], KEYS_VARIABLE
        )
    path = Path(text)
    try:
        content: Any = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        # The text is not shown: it may be a key that was put there by mistake.
        raise ValueError(f"{KEYS_VARIABLE} is neither a readable file nor pairs of name:sha256") from None
    if isinstance(content, Mapping) and "access" in content:
        content = cast("Mapping[str, Any]", content)["access"]
    return _parse(content, str(path))


def _parse(content: Any, source: str) -> Access:
    """Keys alone, or all of `Access`."""
    given = {"keys": cast("Any", content)} if isinstance(content, list) else content
    return validated(Access, given, source)
