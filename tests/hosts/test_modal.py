"""Models on Modal, as far as it goes without the service: the app it is sent, and what a container runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sheaf import ModelSpec, registry
from sheaf.modal_server import ModalServer, requirements
from sheaf.scheduling.batch import BatchPolicy
from sheaf.spec import ResourceConfig
from sheaf_client import Sheaf
from tests.echoes import Echo

pytest.importorskip("modal")

#: What a container does with the class that it is sent, in a process that has never seen the server.
CONTAINER = """
import sys
from modal._partial_function import _find_callables_for_obj, _PartialFunctionFlags as Flags
from modal._serialization import deserialize
from sheaf_client import Sheaf

models = deserialize(sys.stdin.buffer.read(), None)()
def hook(flag):
    (found,) = _find_callables_for_obj(models, flag).values()
    return found()
hook(Flags.ENTER_POST_SNAPSHOT)
with Sheaf.asgi(hook(Flags.WEB_INTERFACE)) as client:
    request = dict(model="statsforecast", history=[1.0, 2.0] * 12, horizon=2, frequency="1h")
    print(len(client.time_series.forecast(**request).mean))
hook(Flags.EXIT)
"""


def registered(server: ModalServer) -> Any:
    """Modal's own record of the one function that it would deploy."""
    (function,) = server.app._local_state.functions.values()
    return function


def test_the_app_that_a_container_serves_answers_a_real_request() -> None:
    container = ModalServer([ModelSpec(name="echo", backend_cls=Echo), "statsforecast"]).container()
    with Sheaf.asgi(container.web.local()) as client:
        assert [(m.name, m.ready) for m in client.models.list()] == [("echo", True), ("statsforecast", True)]
        request: dict[str, Any] = {"history": [1.0, 2.0, 3.0], "horizon": 2, "frequency": "1h"}
        assert client.time_series.forecast(model="echo", **request).mean == [3.0, 3.0]


def test_what_is_sent_to_a_container_runs_in_a_process_of_its_own() -> None:
    from modal._serialization import serialize

    sent = serialize(registered(ModalServer("statsforecast"))._source_info_.user_cls)
    done = subprocess.run([sys.executable, "-c", CONTAINER], input=sent, capture_output=True, check=False)
    assert done.stdout.decode().split() == ["2"], done.stderr.decode()


class Known(Echo):
    """Known to this program alone, by the name that the test gives it."""


def test_a_backend_that_the_program_registered_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register_backend("known_here")(Known)
    container = ModalServer(ModelSpec(name="known", backend="known_here")).container
    # The container's process knows the name from nowhere.
    del registry._registered["known_here"]
    with Sheaf.asgi(container().web.local()) as client:
        assert [(m.name, m.backend) for m in client.models.list()] == [("known", "known_here")]
        request: dict[str, Any] = {"history": [1.0, 3.0], "horizon": 1, "frequency": "1h"}
        assert client.time_series.forecast(model="known", **request).mean == [3.0]


def test_the_app_asks_for_the_resources_of_its_models() -> None:
    specs = [
        ModelSpec(name="a", backend_cls=Echo, resources=ResourceConfig(num_cpus=2, num_gpus=1, memory_gb=2)),
        ModelSpec(name="b", backend_cls=Echo, resources=ResourceConfig(num_cpus=1, memory_gb=1)),
    ]
    server = ModalServer(specs, gpu="L4", name="weather")
    spec = registered(server)._spec_
    assert server.app.name == "weather"
    assert (spec.gpus, spec.cpu, spec.memory) == ("L4", 3.0, 3072)


def test_the_models_are_added_to_an_app_that_is_given() -> None:
    """The published way: the module has an app and an image of its own, and builds the server into it."""
    import modal

    app = modal.App("flux-serving")
    image = modal.Image.debian_slim(python_version="3.11").pip_install("a-package")
    server = ModalServer(app=app, image=image, gpu="A10G", models=[ModelSpec(name="a", backend_cls=Echo)])
    assert not app._local_state.functions
    assert server.build() is app
    assert server.build() is server.app
    (function,) = app._local_state.functions.values()
    assert function._spec_.gpus == "A10G"
    assert str(function._spec_.image) == str(image)
    with pytest.raises(ValueError, match="app or name"):
        ModalServer("statsforecast", app=app, name="other")


def test_a_keyword_that_nobody_knows_is_refused_where_it_is_given() -> None:
    assert registered(ModalServer("statsforecast", min_containers=1))._spec_ is not None
    with pytest.raises(TypeError, match=r"'min_container' is no argument .* 'min_containers'"):
        ModalServer("statsforecast", min_container=1)
    with pytest.raises(TypeError, match=r"'extra' .* 'extras'"):
        ModalServer("statsforecast", extra=["statsforecast"])


def test_a_container_takes_as_many_requests_as_its_engine_holds() -> None:
    policy = BatchPolicy(max_batch_size=8, max_queue=100)
    server = ModalServer(ModelSpec(name="a", backend_cls=Echo, batch_policy=policy))
    known = registered(server)._function_info.concurrency_info
    assert (known.max_inputs, known.target_inputs) == (108, 16)


def test_callers_need_a_token_unless_the_server_is_public() -> None:
    from modal._partial_function import _find_partial_methods_for_user_cls, _PartialFunctionFlags

    def guarded(server: ModalServer) -> bool:
        user_cls = registered(server)._source_info_.user_cls
        (web,) = _find_partial_methods_for_user_cls(user_cls, _PartialFunctionFlags.WEB_INTERFACE).values()
        return bool(web.params.webhook_config.requires_proxy_auth)

    assert guarded(ModalServer("statsforecast"))
    assert not guarded(ModalServer("statsforecast", public=True))


def test_a_model_that_wants_a_gpu_must_be_told_which() -> None:
    spec = ModelSpec(name="a", backend_cls=Echo, resources=ResourceConfig(num_gpus=1))
    with pytest.raises(ValueError, match="say which"):
        ModalServer(spec)


def test_the_image_gets_what_the_packages_and_the_extras_need() -> None:
    plain, more = requirements(), requirements(["statsforecast"])
    assert {line.partition(">")[0] for line in plain} >= {"starlette", "pydantic", "numpy"}
    assert [line.partition(">")[0] for line in set(more) - set(plain)] == ["statsforecast"]
    with pytest.raises(ValueError, match="no extra 'nonsense'"):
        requirements(["nonsense"])


def test_what_cannot_be_deployed_is_refused_where_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"^models: name at least one$"):
        ModalServer(models=[])
    with pytest.raises(TypeError, match=r"app: expected a modal\.App, not 'x'; the name of one is `name`"):
        ModalServer("statsforecast", app="x")
