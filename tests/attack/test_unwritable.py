"""What nothing can write down or measure, of an answer or a refusal, costs its own request alone."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from sheaf.spec import ModelSpec
from tests.echoes import Measured, Unwritable
from tests.http.conftest import GOOD, Serve


@pytest.mark.parametrize("media", ["application/json", "application/msgpack"])
def test_an_answer_that_cannot_be_written_is_an_error_of_its_own_item(serve: Serve, media: str) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Unwritable))
    items = [{**GOOD, "history": [1.0, last]} for last in (5.0, 12.0, 13.0, 6.0)]
    answer = httpx.post(f"{server.url}/echo/batch", json={"requests": items}, headers={"accept": media})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media)
    told = (answer.json() if media.endswith("json") else msgspec.msgpack.decode(answer.content))["responses"]
    assert [item.get("code") for item in told] == [None, "invalid", "internal", None]
    assert all(item["request_id"] for item in told)
    for item, status, code in ((items[1], 422, "invalid"), (items[2], 500, "internal")):
        alone = httpx.post(f"{server.url}/echo/predict", json=item)
        assert (alone.status_code, alone.json()["code"]) == (status, code)
        assert f'"code":"{code}"' in httpx.post(f"{server.url}/echo/stream", json=item).text
    assert httpx.post(f"{server.url}/echo/predict", json=GOOD).status_code == 200


def test_a_request_whose_answer_has_no_size_is_refused_alone(serve: Serve) -> None:
    server = serve(ModelSpec(name="echo", backend_cls=Measured))
    items = [{**GOOD, "history": [1.0, last]} for last in (5.0, 13.0, 6.0)]
    answer = httpx.post(f"{server.url}/echo/batch", json={"requests": items})
    assert answer.status_code == 200
    assert [item.get("code") for item in answer.json()["responses"]] == [None, "invalid", None]
    alone = httpx.post(f"{server.url}/echo/predict", json=items[1])
    assert (alone.status_code, alone.json()["detail"]) == (422, "13 is refused.")
