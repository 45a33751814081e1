"""What a user may say about batching, and grouping by a field."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")

Weight = Annotated[float, Field(ge=0.001, le=1000)]


class BatchPolicy(BaseModel):
    """How requests of one model form batches."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_batch_size: int = Field(default=32, gt=0, description="Most requests in one call of the model.")
    timeout_ms: float = Field(
        default=10,
        ge=0,
        description="Milliseconds that `wait='always'` lets a batch form before it runs. Who gives it and no "
        "`wait` has asked for `always`.",
    )
    linger: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of a call's time that the model waits after it for the callers it answered, while "
        "there is room for them in the next batch: who asks again at once then shares it. 0 never waits.",
    )
    bucket_by: str | None = Field(
        default=None, description="Name of a request field; only requests equal in it share a batch."
    )
    wait: Literal["busy", "always"] = Field(
        default="busy",
        description="`busy` runs what waits when the model is free; `always` gives a batch a fixed window. "
        "`busy` by default, `always` where `timeout_ms` is given.",
    )
    max_batch_cost: float | None = Field(
        default=None, gt=0, description="Most cost, as the backend counts it, in one call of the model."
    )
    max_queue: int = Field(
        default=1024, gt=0, description="Most requests that wait; more are refused at once."
    )
    max_overtakes: int = Field(
        default=8,
        ge=0,
        description="Batches that may take a later request of the same key before one that waits.",
    )
    target_ms: float | None = Field(
        default=None,
        gt=0,
        description="Milliseconds that one call of the model should take at most; batches are sized to it. "
        "The backend's own by default: 500 where it answers one after another, else none.",
    )
    priority_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Seconds that one step of priority is worth: a request of priority 1 is served as if it "
        "had arrived so much earlier, so urgency goes first and nothing waits for ever.",
    )
    shortest_first: bool = Field(
        default=False,
        description="Whether requests that work in steps go in the order of what they have left; one that is "
        "long waits about eight times as long as it takes at most.",
    )
    tenant_weights: dict[str, Weight] = Field(
        default_factory=dict,
        description="Share of the device's time of each tenant relative to the others, from 0.001 to 1000; "
        "1 where not named.",
    )
    call_timeout_s: float | None = Field(
        default=900.0,
        gt=0,
        description="Seconds after which a call of the model counts as hung and the model is loaded anew.",
    )
    load_timeout_s: float | None = Field(
        default=1800.0,
        gt=0,
        description="Seconds after which loading a model anew, or letting go of one, counts as "
        "hung and is tried once more. The first load has no bound.",
    )

    @model_validator(mode="before")
    @classmethod
    def _given_is_wanted(cls, values: Any) -> Any:
        """A window that is given has an effect."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        return {**given, "wait": "always"} if "timeout_ms" in given and "wait" not in given else given


def bucket_value(request: Any, bucket_by: str | None) -> Hashable:
    """The value that decides a request's bucket; None where there is no such field."""
    value: Any = getattr(request, bucket_by, None) if bucket_by else None
    return value if isinstance(value, Hashable) else repr(value)


def bucket_requests(requests: Sequence[T], bucket_by: str | None) -> list[tuple[list[int], list[T]]]:
    """Group requests by the value of one field.

    Returns:
        (indices into `requests`, the requests themselves) per value, in the order each value was first
        met; one group of all, be it empty, where `bucket_by` is None.
    """
    if bucket_by is None:
        return [(list(range(len(requests))), list(requests))]
    groups: dict[Hashable, tuple[list[int], list[T]]] = {}
    for index, request in enumerate(requests):
        indices, members = groups.setdefault(bucket_value(request, bucket_by), ([], []))
        indices.append(index)
        members.append(request)
    return list(groups.values())
