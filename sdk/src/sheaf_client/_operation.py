"""One typed operation of a model type: which path it has and which contracts go in and come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from typing_extensions import TypeVar

from sheaf_client.contracts.base import BaseRequest, BaseResponse
from sheaf_client.contracts.events import ProgressEvent

RequestT = TypeVar("RequestT", bound=BaseRequest)
ResponseT = TypeVar("ResponseT", bound=BaseResponse)
#: What tells a step of a stream: the plain event where nothing else is said.
ProgressT_co = TypeVar("ProgressT_co", bound=ProgressEvent, default=ProgressEvent, covariant=True)


@dataclass(frozen=True)
class Operation(Generic[RequestT, ResponseT, ProgressT_co]):
    """`path` holds `{model_name}` where the deployed model's name goes.

    `progress` tells a step of its stream.
    """

    model_type: str
    name: str
    path: str
    request: type[RequestT]
    response: type[ResponseT]
    progress: type[ProgressT_co]

    @property
    def takes_adapters(self) -> bool:
        """Whether requests say which LoRA adapters to apply, and how strongly."""
        return self.request.model_fields.keys() >= {"adapters", "adapter_weights"}
