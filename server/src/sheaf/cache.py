"""What a user may say about keeping answers. The cache itself is `sheaf.engine.cache`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from sheaf.environment import switched_on


class CacheConfig(BaseModel):
    """Keeps the answers of one model in the memory of its process.

    Each API key has answers of its own, unless they are `shared`: else who asks would learn, by how quick an
    answer is, what others have asked.
    Equal requests (all but their `request_id`) get equal answers; those that run at the same time share one
    call of the model. Answers that chance decides are not kept: the backend says which, by `deterministic`,
    which is true unless it is overridden. One of your own whose model draws must override it: else all who
    ask the same get the first draw.
    Both bounds hold, that in bytes and that in answers.
    The environment variable `SHEAF_CACHE_DISABLED=1` turns every cache off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether answers are kept.")
    max_bytes: int = Field(
        default=256 * 2**20, gt=0, description="Most bytes kept; the least recently used answers go first."
    )
    ttl_s: float | None = Field(
        default=None, gt=0, description="Seconds after which an answer is forgotten; None keeps it."
    )
    max_size: int | None = Field(default=None, gt=0, description="Most answers kept; None is no such bound.")
    exclude_fields: tuple[str, ...] = Field(
        default=(),
        description="Fields of the request that make no difference: requests that are equal in all others "
        "get the answer of the first.",
    )
    shared: bool = Field(
        default=False, description="Whether callers with different keys are given each other's answers."
    )


def cache_disabled() -> bool:
    """Whether the environment turns caches off."""
    return switched_on("SHEAF_CACHE_DISABLED")
