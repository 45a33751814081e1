"""What one caller has asked is not another's to know: kept answers and calls under way belong to a key."""

from __future__ import annotations

import httpx
import pytest

from sheaf.cache import CacheConfig
from sheaf.http.keys import Access, ApiKey, hash_of
from sheaf.spec import ModelSpec
from tests.backends import Echo
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
