"""What a batch job is: a model, where its requests lie, where its answers go. Reads and writes YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sheaf.settings import validated
from sheaf.spec import ModelSpec


def _named(value: Any) -> Any:
    return {"name": value, "backend": value} if isinstance(value, str) else value


class JsonlSource(BaseModel):
    """Requests, one JSON object per line, in UTF-8; blank lines do not count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | tuple[str, ...] = Field(
        min_length=1,
        description="A file, a pattern in the file's name (`in/*.jsonl`), a URI (`s3://…`), or several.",
    )
    max_row_bytes: int = Field(
        default=32 * 2**20, gt=0, description="A longer row is refused and never held in memory."
    )


class JsonlSink(BaseModel):
    """Answers, one JSON object per line, in part files of one directory.

    A line has the row's `index` (from 0, over all files), its `request_id`, and `response` or `problem`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1, description="The directory, or its URI; made where it is not there.")


class BatchSpec(BaseModel):
    """One batch job.

        BatchSpec(spec="statsforecast", source=JsonlSource(path="in.jsonl"), sink=JsonlSink(path="out"))

    In YAML the same members, with `spec` a model as in `models.yaml` or the name of a backend.
    """

    model_config = ConfigDict(extra="forbid")

    spec: Annotated[ModelSpec, BeforeValidator(_named)] = Field(description="The model.")
    source: JsonlSource
    sink: JsonlSink
    num_workers: int | None = Field(
        default=None, gt=0, description="Processes with a model each; the model's `replicas` when absent."
    )
    batch_size: int | None = Field(
        default=None,
        gt=0,
        description="Most rows a worker has in its engine at once; twice the policy's `max_batch_size` when "
        "absent. The batch policy says how many of them share a call of the model.",
    )
    rows_per_file: int = Field(
        default=256, gt=0, description="Rows per part file: what one worker takes, and what a resume redoes."
    )
    on_error: Literal["record", "fail"] = Field(
        default="record", description="`record` writes a bad row's problem; `fail` ends the job at it."
    )
    resume: bool = Field(
        default=True, description="Keep the part files that an earlier run of this job has finished."
    )

    @property
    def workers(self) -> int:
        """Processes that the job asks for."""
        return self.num_workers or self.spec.resources.replicas

    @property
    def window(self) -> int:
        """Rows that a worker has in its engine at once: never more than its queue takes."""
        policy = self.spec.batch_policy
        return min(self.batch_size or 2 * policy.max_batch_size, policy.max_queue)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """The job in a YAML or JSON file; raises `ValueError` for what is no job, `OSError` for no file."""
        try:
            content: Any = yaml.safe_load(Path(path).read_bytes())
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from None
        return validated(cls, content, str(path))

    def to_yaml(self) -> str:
        """The job as YAML; raises `ValueError` where the backend is a class and has no name."""
        if self.spec.backend_cls is not None:
            raise ValueError(
                f"{self.spec.backend_cls.__name__} has no name in YAML: give `backend`, its registered name"
            )
        said = self.model_dump(mode="json", exclude_defaults=True)
        return str(cast("Any", yaml).safe_dump(said, sort_keys=False))
