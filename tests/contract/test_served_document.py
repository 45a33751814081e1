"""The served document holds: answers have documented statuses and schemas, and none is a 5xx.

Schemathesis reads the document as any stranger would and sends what it allows and what it forbids.
"""

from __future__ import annotations

import copy
import re
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
from tests.contract.values import JSON, document

MSGPACK = "application/msgpack"
#: Types in the unions of all types.
FEW = TYPES[::8]
EXAMPLES = 10
MODEL_NAME = document()["components"]["schemas"]["ModelName"]["pattern"]
#: What each operation answered, filled by the test.
STATUSES: dict[tuple[str, str], set[int]] = {}
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
    return msgspec.msgpack.encode(_of_64_bits(value))


def _of_64_bits(value: Any) -> Any:
    """The value with larger integers as floating point numbers: MessagePack has no others."""
    if isinstance(value, dict):
        return {_of_64_bits(key): _of_64_bits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_of_64_bits(item) for item in value]
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


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


def _few_types() -> JSON:
    """The document with a few types in the unions of all: drawing from unions of 24 takes minutes.

    The typed routes are all there, and those that take any type do the same for each.
    """
    few = copy.deepcopy(document())
    for name, suffix in (("AnyRequest", "Request"), ("AnyResponse", "Response")):
        union = few["components"]["schemas"][name]
        mapping = {t: ref for t, ref in union["discriminator"]["mapping"].items() if t in FEW}
        assert all(ref.endswith(suffix) for ref in mapping.values())
        union["oneOf"] = [{"$ref": ref} for ref in mapping.values()]
        union["discriminator"]["mapping"] = mapping
    return few


config = SchemathesisConfig(
    projects=ProjectsConfig(default=ProjectConfig(generation=GenerationConfig(max_examples=EXAMPLES)))
)
api = schemathesis.openapi.from_dict(_few_types(), config=config)
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
    if "{model_name}" not in ctx.operation.path:
        return path_parameters
    route = ctx.operation.path.split("/")[2]
    name = route if route in TYPES else FEW[len(str(path_parameters)) % len(FEW)]
    return {**path_parameters, "model_name": name}


def agree(case: Case) -> None:
    """Let the body name the model that the URL names, where it names any: no document can ask for that."""
    names = case.body if isinstance(case.body, dict) else {}
    for body in (names, *(item for item in as_list(names.get("requests")) if isinstance(item, dict))):
        if isinstance(name := body.get("model_name"), str) and re.fullmatch(MODEL_NAME, name):
            body["model_name"] = case.path_parameters["model_name"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@api.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented(case: Case) -> None:
    agree(case)
    response = case.call_and_validate(checks=CHECKS)
    STATUSES.setdefault((case.method, case.operation.path), set()).add(response.status_code)


def test_every_operation_was_answered_and_refused() -> None:
    """The test above has seen both: it could not fail on answers that never came."""
    for path, item in document()["paths"].items():
        for method in item.keys() & {"get", "post"}:
            seen = STATUSES[method.upper(), path]
            assert 200 in seen, (path, seen)
            assert method == "get" or 422 in seen, (path, seen)
