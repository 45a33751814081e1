"""A head is read on the event loop: what it lists is looked at in part, so that others do not wait for it."""

from __future__ import annotations

import httpx
import pytest
from starlette.requests import Request

from sheaf.http.docs import _tags
from sheaf.http.encodings import decompressor, qualities
from sheaf.http.limits import Limits
from sheaf_client.errors import UnsupportedMediaTypeError
from tests.http.conftest import GOOD, Serve, connect, head, read_answer

#: Items that a head has room for.
MANY = 15_000
#: As many as are ever told apart.
FEW = 64


def test_few_items_of_a_list_are_looked_at() -> None:
    found = qualities("application/msgpack;q=0.5," + ",".join(f"a{n}" for n in range(MANY)))
    assert len(found) == FEW
    assert found["application/msgpack"] == 0.5


def test_few_tags_are_compared() -> None:
    fields = [(b"if-none-match", b'"x",' * MANY)]
    assert len(_tags(Request({"type": "http", "headers": fields}))) <= FEW


@pytest.mark.parametrize("name", ["gzip", "identity", "x", ""])
def test_a_long_list_of_encodings_is_refused(name: str) -> None:
    if name == "gzip":
        assert decompressor("identity," * 10 + name, Limits()) is not None
    with pytest.raises(UnsupportedMediaTypeError):
        decompressor(f"{name}," * MANY, Limits())


@pytest.mark.parametrize("name", ["accept", "accept-encoding"])
def test_who_lists_much_is_answered(serve: Serve, name: str) -> None:
    value = "application/msgpack, zstd" + "," * MANY
    answer = httpx.post(f"{serve().url}/echo/predict", json=GOOD, headers={name: value})
    assert answer.status_code == 200
    media = "application/msgpack" if name == "accept" else "application/json"
    assert answer.headers["content-type"] == media


@pytest.mark.parametrize("path", ["/" + "%C3%A9" * 800, "/echo/predict?" + "x" * 5000])
def test_a_url_is_short(serve: Serve, path: str) -> None:
    server = serve()
    with connect(server) as connection:
        connection.sendall(head(path) + b"\r\n")
        assert read_answer(connection)[0] == 431
    assert httpx.get(f"{server.url}/{'%C3%A9' * 500}/health").status_code == 404
