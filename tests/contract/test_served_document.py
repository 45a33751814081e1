"""The document holds: whatever is sent, answers have documented statuses and schemas, and no 5xx.

Schemathesis reads the schema's document, and the one that a server of one model serves, as any stranger
would, and sends what they allow and what they forbid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis import Case, checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from sheaf.http import create_app
from sheaf.local import LocalModels
from sheaf.openapi import generate
from tests.contract.echo import specs
from tests.contract.exchanges import BY_TYPE
from tests.contract.values import JSON, document, schemas

# Schemathesis makes a test of each operation, and gives all of them one identifier.
pytestmark = pytest.mark.serial
MSGPACK = "application/msgpack"
TYPES = sorted({op.model_type for op in BY_TYPE.values()})
#: Types in the unions of all types.
FEW = TYPES[::8]
EXAMPLES = 6
MODEL_NAMES = Draft202012Validator(schemas()["ModelName"])
#: What each operation answered, filled by the test.
STATUSES: dict[tuple[str, str], set[int]] = {}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
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
    """The document in the form that tells of events, with a few types in the unions of all.

    Drawing from unions of 24 takes minutes. The typed routes are all there; those that take any type do
    the same for each.
    """
    few = json.loads(files("sheaf.http").joinpath("document/openapi-3.2.json").read_text(encoding="utf-8"))
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
served = schemathesis.openapi.from_dict(
    generate([spec for spec in specs() if spec.name == FEW[0]], version="3.2"), config=config
)
served.app = echoes


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    yield
    if echoes.models is not None:
        echoes.models.stop()


def deployed(path: str) -> str:
    """A model that is deployed: on a typed route the one of that type."""
    route = path.split("/")[2]
    return route if route in TYPES else FEW[0]


@api.hook
def map_path_parameters(ctx: schemathesis.HookContext, path_parameters: Any) -> Any:
    assert ctx.operation is not None
    path = ctx.operation.path
    return {**path_parameters, "model_name": deployed(path)} if "{model_name}" in path else path_parameters


def agree(case: Case) -> None:
    """What no document can ask for: a model that is there, the same in URL and body, and time enough."""
    path = case.operation.path
    if path != "/models":
        name = path.split("/")[1]
        if "model_name" in case.path_parameters:
            name = case.path_parameters["model_name"] = deployed(path)
        whole = case.body if isinstance(case.body, dict) else {}
        for body in (whole, *(item for item in as_list(whole.get("requests")) if isinstance(item, dict))):
            if MODEL_NAMES.is_valid(body.get("model_name")):
                body["model_name"] = name
    try:
        if 0 < float(case.headers.get("X-Sheaf-Timeout", "0")) < 60:
            case.headers["X-Sheaf-Timeout"] = "60"
    except ValueError:
        pass  # it is to be refused


def refusable(case: Case) -> bool:
    """Whether what is wrong with a case must have it refused.

    A batch is answered whatever its items are. Headers that nobody knows are for others to read, an
    identifier that cannot be echoed is replaced, and the URL names the model and its type where a body
    does not.
    """
    named = {"model_name", "model_type", *tagged(case.operation.path)}
    if isinstance(case.body, dict) and not named <= case.body.keys():
        return False
    known = case.headers.keys() <= {"X-Request-ID", "X-Sheaf-Timeout"}
    echoed = re.fullmatch("[!-~]{1,128}", case.headers.get("X-Request-ID", "-"))
    return known and echoed is not None and not case.operation.path.endswith("/batch")


def tagged(path: str) -> set[str]:
    """The `operation` of a typed route whose contract has one, which the URL names too."""
    operations = (op for op in BY_TYPE.values() if op.path.split("/")[2:] == path.split("/")[2:])
    return {"operation"} & {name for op in operations for name in op.request.model_fields}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


drawn = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@served.parametrize()
@drawn
def test_every_answer_of_a_server_is_in_the_document_that_it_serves(case: Case) -> None:
    _ask(case)


@api.parametrize()
@drawn
def test_every_answer_is_documented(case: Case) -> None:
    _ask(case)


def _ask(case: Case) -> None:
    agree(case)
    required = [*CHECKS, checks.negative_data_rejection] if refusable(case) else CHECKS
    response = case.call_and_validate(checks=required)
    STATUSES.setdefault((case.method, case.operation.path), set()).add(response.status_code)


def test_every_operation_was_answered_and_refused() -> None:
    """The test above has seen both: it could not fail on answers that never came."""
    for path, item in document()["paths"].items():
        for method in item.keys() & {"get", "post"}:
            seen = STATUSES[method.upper(), path]
            assert 200 in seen, (path, seen)
            assert method == "get" or 422 in seen, (path, seen)
