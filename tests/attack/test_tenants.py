"""What one caller has asked is not another's to know: kept answers, calls and contexts belong to a key."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import httpx
import pytest

from sheaf.api.tabular import TabularRequest
from sheaf.cache import CacheConfig
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.echoes import Echo
from tests.http.conftest import GOOD, Serve

NAMES = ("ann", "bob")
ACCESS = Access(keys=tuple(ApiKey(name=name, sha256=hash_of(name)) for name in NAMES))


@pytest.mark.parametrize("config", [CacheConfig(), CacheConfig(shared=True)], ids=["own", "shared"])
def test_kept_answers_belong_to_a_key_unless_they_are_shared(serve: Serve, config: CacheConfig) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Echo, cache=config), access=ACCESS)

    def hit(name: str) -> bool:
        answer = httpx.post(f"{server.url}/echo/predict", json=GOOD, headers={"x-api-key": name})
        return bool(answer.json()["metadata"]["usage"]["cache_hit"])

    assert [hit("ann"), hit("ann"), hit("bob"), hit("bob")] == [False, True, config.shared, True]


TREES = ModelSpec(name="trees", backend="sklearn", backend_kwargs={"max_iter": 2})
TABLE: dict[str, Any] = {"context_X": [[1.0], [2.0], [3.0], [4.0]], "context_y": ["a", "b", "a", "b"]}
QUERY: dict[str, Any] = {"query_X": [[1.5]], "output_mode": "probabilities"}


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_contexts_belong_to_a_key_unless_they_are_shared(serve: Serve, *, shared: bool) -> None:
    server = serve(TREES.model_copy(update={"shared_contexts": shared}), access=ACCESS)

    def ask(name: str, **fields: Any) -> httpx.Response:
        body, headers = {**QUERY, **fields}, {"x-api-key": name}
        return httpx.post(f"{server.url}/trees/predict", json=body, headers=headers, timeout=60)

    def ask_many(name: str, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
        items, headers = [{**QUERY, **body} for body in bodies], {"x-api-key": name}
        answer = httpx.post(f"{server.url}/trees/batch", json={"requests": items}, headers=headers)
        return answer.json()["responses"]  # type: ignore[no-any-return]

    def hit(answer: dict[str, Any]) -> bool:
        return bool(answer["metadata"]["context_hit"])

    first = ask("ann", **TABLE).json()
    identifier = first["context_id"]
    assert hit(ask("ann", context_id=identifier).json())
    stolen = ask("bob", context_id=identifier)
    if shared:
        assert stolen.json()["probabilities"] == first["probabilities"]
    else:
        unknown = ask("bob", context_id="0" * 32)
        told: list[dict[str, Any]] = [{**answer.json(), "request_id": ""} for answer in (stolen, unknown)]
        assert told[0] == told[1]
        assert told[0]["errors"][0]["path"] == "/context_id"
        # Another task would tell more of a context that is there.
        other = {"task": "regression", "output_mode": "predictions"}
        assert ask("bob", context_id=identifier, **other).json()["errors"] == told[0]["errors"]
    own = ask("bob", **TABLE).json()
    assert hit(own) == shared
    assert (own["context_id"] == identifier) == shared
    # Together with rows that are kept, in one call of the model.
    mine, another = ask_many("bob", TABLE, {"context_id": identifier})
    assert hit(mine)
    assert ("probabilities" in another) == shared
    assert ask("ann", context_id=identifier).json()["probabilities"] == first["probabilities"]


def identifier_of(spec: ModelSpec) -> str:
    backend = spec.make_backend()
    backend.load()
    request = TabularRequest(model_name="trees", **QUERY, **TABLE)
    return str(backend.predict(request).context_id)


def test_replicas_agree_on_identifiers_that_no_other_process_can_compute() -> None:
    code = (
        "import pickle, sys; from sheaf.spec import ModelSpec; "
        "from tests.attack.test_tenants import TREES, identifier_of; "
        "sent = pickle.loads(bytes.fromhex(sys.argv[1])); print(identifier_of(sent), identifier_of(TREES))"
    )

    def elsewhere(**variables: str) -> list[str]:
        """The identifiers in another process: under a spec that was sent there, and under its own."""
        command = [sys.executable, "-c", code, pickle.dumps(TREES).hex()]
        run = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
        return run.stdout.split()

    sent, own = elsewhere()
    assert sent == identifier_of(TREES)
    assert own != sent
    agreed = [elsewhere(SHEAF_CONTEXT_SECRET=secret)[1] for secret in ("one", "one", "other")]
    assert agreed[0] == agreed[1] != agreed[2]
