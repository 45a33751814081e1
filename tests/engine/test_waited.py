"""How long a request waited is told once, however often it ran."""

from __future__ import annotations

from typing import Any

from sheaf.backends.base import BackendDiedError
from sheaf.engine.jobs import Job, PredictJob
from sheaf.engine.model import LoadedModel
from sheaf.scheduling.queue import Entry, WaitingLine
from sheaf.spec import ModelSpec
from tests.conftest import MakeRequest
from tests.engine.harness import Steered, Values, Watching, World


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_was_in_the_call_that_killed_the_model_waited_before_and_after_it(
    make_request: MakeRequest,
) -> None:
    clock, watching = Clock(), Watching()

    def predict(values: Values) -> None:
        clock.now += 2
        if len(world.calls) == 1:
            raise BackendDiedError("the worker is gone")

    world = World(predict=predict)
    spec = ModelSpec(name="echo", backend_cls=Steered, backend_kwargs={"world": world})
    model = LoadedModel(spec, watching, clock)
    model.load()
    answers: list[Any] = []
    job: Job = PredictJob(make_request(1.0), answers.append)
    clock.now = 3
    again = model.run([Entry(job, None, 1.0, 0.0)])
    assert not answers
    model.adopt(model.reload(lambda: True))
    line: WaitingLine[Job] = WaitingLine(spec.batch_policy)
    for entry in again:
        line.come_back(entry, clock())
    clock.now = 10
    assert model.run(line.take(clock())) == []
    usage = answers[0].metadata.usage
    assert (usage.queue_seconds, usage.compute_seconds) == (3 + 5, 2)
    assert [record.queue_seconds for record in watching.records] == [[3], [5]]
