"""The served document holds: whatever is sent, answers have documented statuses, types and schemas, and no 5xx.

Schemathesis reads the document as any stranger would and sends what it allows and what it forbids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from sheaf.http import create_app
from sheaf.local import LocalModels
from tests.contract.echo import specs
from tests.contract.exchanges import TYPES
from tests.contract.values import document

MSGPACK = "application/msgpack"
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]


@schemathesis.serializer(MSGPACK)
def as_msgpack(ctx: schemathesis.SerializationContext, value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


@schemathesis.deserializer(MSGPACK)
def from_msgpack(ctx: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    return msgspec.msgpack.decode(response.content)


class _Echoes:
    """The app over an echo of every contract, made when the first request comes."""

    def __init__(self) -> None:
        self.models: LocalModels | None = None
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self.models = LocalModels.start(specs())
            self._app = create_app(self.models)
        await self._app(scope, receive, send)


echoes = _Echoes()
config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=GenerationConfig(max_examples=20))))
api = schemathesis.openapi.from_dict(document(), config=config)
api.app = echoes


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    yield
    if echoes.models is not None:
        echoes.models.stop()


@api.hook
def map_path_parameters(ctx: schemathesis.HookContext, path_parameters: Any) -> Any:
    """Name a model that is deployed: on a typed route the one of that type."""
    assert ctx.operation is not None
    segments = ctx.operation.path.split("/")
    name = segments[2] if segments[2] in TYPES else TYPES[len(str(path_parameters)) % len(TYPES)]
    return {**path_parameters, "model_name": name}


@api.parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented(case: Case) -> None:
    case.call_and_validate(checks=CHECKS)
