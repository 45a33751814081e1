"""One typed operation of a model type: which path it has and which contracts go in and come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sheaf_client.contracts.base import BaseRequest, BaseResponse

RequestT = TypeVar("RequestT", bound=BaseRequest)
ResponseT = TypeVar("ResponseT", bound=BaseResponse)


@dataclass(frozen=True)
class Operation(Generic[RequestT, ResponseT]):
    """`path` holds `{model_name}` where the deployed model's name goes."""

    model_type: str
    name: str
    path: str
    request: type[RequestT]
    response: type[ResponseT]

    @property
    def takes_adapters(self) -> bool:
        """Whether requests say which LoRA adapters to apply, and how strongly."""
        return self.request.model_fields.keys() >= {"adapters", "adapter_weights"}
