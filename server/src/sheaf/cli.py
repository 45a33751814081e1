"""The `sheaf` command: serve models on this machine, list what can be served."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sheaf.http.keys import Access
    from sheaf.http.limits import Limits
    from sheaf.spec import ModelSpec

app = typer.Typer(
    help="Serve foundation models that are not text LLMs.",
    no_args_is_help=True,
    add_completion=False,
    # Some versions show locals unless told otherwise, and those hold URLs with passwords.
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)
keys = typer.Typer(help="Make API keys.", no_args_is_help=True)
app.add_typer(keys, name="key")


class Form(Enum):
    """How a document is written."""

    JSON = "json"
    YAML = "yaml"


@app.callback()
def about() -> None:
    """Serve foundation models that are not text LLMs."""


@app.command()
def serve(
    models: Annotated[list[str], typer.Argument(help="Names of backends, or YAML files of model specs.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)
    ] = 8000,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may call this server; may be repeated.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name that this server may be asked by; may be repeated.")
    ] = None,
) -> None:
    """Serve models in this process: `sheaf serve statsforecast`, `sheaf serve models.yaml`."""
    from sheaf.hosts.embedded import EmbeddedServer
    from sheaf.http.hosts import is_loopback
    from sheaf.http.keys import Access

    with _told():
        access = Access.from_environment(_access(models))
        specs = _read(models, empty=access.admin is not None)
        limits = _limits(models, allow_origin or (), allow_host or ())
        server = EmbeddedServer(specs, host=host, port=port, limits=limits, access=access)
        if not server.access.keys and not is_loopback(host):
            typer.echo(_OPEN_WARNING.format(host=host), err=True)
        names = ", ".join(spec.name for spec in specs) or "no models yet"
        docs = _where_docs_are(server.access)
        typer.echo(f"Loading {names} …")
        server.run(on_ready=lambda: typer.echo(f"Serving {names} on {server.url} - {docs}"))


@keys.command("new")
def new_key(
    name: Annotated[str, typer.Argument(help="Who shall bear it: letters, digits, `.`, `_` and `-`.")],
) -> None:
    """Make a key: it is shown once, and the line below it goes into the server's keys."""
    from sheaf.http.keys import ApiKey, hash_of
    from sheaf.http.keys import new_key as make
    from sheaf.settings import validated

    secret = make()
    with _told():
        key = validated(ApiKey, {"name": name, "sha256": hash_of(secret)})
    typer.echo(f"key (give it to {key.name}; it is not kept):\n  {secret}")
    typer.echo(f"for SHEAF_API_KEYS:\n  {key.name}:{key.sha256}")
    typer.echo(f"for a file of keys:\n  - {{name: {key.name}, sha256: {key.sha256}}}")


@app.command()
def batch(job: Annotated[Path, typer.Argument(help="YAML or JSON file of the job.")]) -> None:
    """Answer files of requests: `sheaf batch job.yaml`."""
    from sheaf.observability import configure_logging

    configure_logging(whole_process=True)
    with _told():
        from sheaf.batch import BatchFailedError, BatchRunner, BatchSpec
    with _told(BatchFailedError):
        spec = BatchSpec.from_yaml(job)
        report = BatchRunner(spec).run()
    earlier = f", {report.resumed} from an earlier run" if report.resumed else ""
    typer.echo(
        f"{report.rows} rows: {report.answered} answered, {report.refused} refused{earlier}; "
        f"{len(report.files)} files in {spec.sink.path} after {report.seconds:.1f} s"
    )


@app.command()
def worker(
    models: Annotated[list[str], typer.Argument(help="Names of backends, or YAML files of model specs.")],
    queue: Annotated[str, typer.Option(help="sqlite:///jobs.db or redis://host:6379/0.")],
    lease: Annotated[
        float, typer.Option(help="Seconds after which a silent worker's jobs are others'.")
    ] = 30,
    max_attempts: Annotated[int, typer.Option(help="Attempts before a job is a dead letter.")] = 3,
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Port that tells Prometheus of the models; none where absent.", min=0, max=65535),
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of that port.")] = "127.0.0.1",
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds after a signal for jobs that run to end; others take those left.")
    ] = 900,
) -> None:
    """Answer the jobs of a queue until a signal comes: `sheaf worker models.yaml --queue sqlite:///jobs.db`."""
    import prometheus_client

    from sheaf.hosts.ending import Ending
    from sheaf.observability import configure_logging, start_tracing
    from sheaf.worker import JobPolicy, QueueBrokenError, QueueUnavailableError, SheafWorker, open_queue

    configure_logging(default="info", whole_process=True)
    start_tracing()
    with _told(QueueUnavailableError, QueueBrokenError):
        policy = JobPolicy(lease=lease, max_attempts=max_attempts)
        with open_queue(queue, policy=policy) as jobs:
            running = SheafWorker(_read(models), jobs)
            if metrics_port is not None:
                prometheus_client.start_http_server(metrics_port, metrics_host)
            with Ending(drain_timeout) as ending:
                ending.by(running.stop)
                running.run()


@app.command()
def backends(
    *,
    as_data: Annotated[
        bool, typer.Option("--json", help="All that is known of them, papers and licences included.")
    ] = False,
) -> None:
    """List the backends that can be served."""
    import json

    from sheaf.catalogue import as_json, as_table, catalogue

    entries = catalogue()
    typer.echo(json.dumps(as_json(entries), indent=2) if as_data else as_table(entries))


@app.command()
def openapi(
    models: Annotated[list[str], typer.Argument(help="Names of backends, or YAML files of model specs.")],
    output: Annotated[Path | None, typer.Option(help="File to write; standard output when absent.")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="JSON unless the output's name says YAML.")
    ] = None,
    server: Annotated[list[str] | None, typer.Option(help="A base URL; may be repeated.")] = None,
) -> None:
    """Write the OpenAPI document of these models, without loading them."""
    from sheaf.openapi import generate, write

    with _told():
        write(generate(_read(models), servers=server or ()), output, None if form is None else form.value)


@contextmanager
def _told(*kinds: type[Exception]) -> Generator[None]:
    """Tell of what a user can mend in one line, and end with status 1."""
    told: tuple[type[Exception], ...] = (*kinds, ValueError, OSError, ImportError)
    try:
        yield
    except told as error:
        typer.echo(f"sheaf: {_plain(error)}", err=True)
        raise typer.Exit(1) from None


def _plain(error: Exception) -> str:
    """The text of an error; that of the operating system without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _read(models: list[str], *, empty: bool = False) -> list[ModelSpec]:
    """The specs that the arguments name; none at all is a `ValueError` unless the host may be empty."""
    from sheaf.spec import as_specs, read_specs

    specs = as_specs(
        [spec for name in models for spec in (read_specs(Path(name)) if _is_file(name) else as_specs(name))]
    )
    if not specs and not empty:
        raise ValueError(f"{', '.join(models)}: models: name at least one")
    return specs


def _access(models: list[str]) -> Access | None:
    """The `access` of the one file that has it."""
    from sheaf.http.keys import read_access

    found = [access for name in models if _is_file(name) and (access := read_access(Path(name)))]
    if len(found) > 1:
        raise ValueError("two files say who may call; keep `access` in one")
    return found[0] if found else None


def _limits(models: list[str], origins: Sequence[str], hosts: Sequence[str]) -> Limits:
    """The `limits` of the one file that has them, with further origins and hosts."""
    from sheaf.http.heads import as_origin
    from sheaf.http.hosts import as_host
    from sheaf.http.limits import Limits, read_limits

    found = [limits for name in models if _is_file(name) and (limits := read_limits(Path(name)))]
    if len(found) > 1:
        raise ValueError("two files say what is accepted; keep `limits` in one")
    limits = found[0] if found else Limits()
    more = {
        "origins": (*limits.origins, *_each("--allow-origin", as_origin, origins)),
        "allowed_hosts": (*limits.allowed_hosts, *_each("--allow-host", as_host, hosts)),
    }
    return limits.model_copy(update=more)


def _each(option: str, read: Callable[[str], str], given: Sequence[str]) -> list[str]:
    """What is read of each; a fault is told with the option's name."""
    try:
        return [read(text) for text in given]
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _where_docs_are(access: Access) -> str:
    if access.keys and not access.open_docs:
        return "docs at /docs need a key, which browsers do not send: `access: {open_docs: true}` opens them"
    return "docs at /docs"


_OPEN_WARNING = (
    "sheaf: WARNING: {host} can be reached from other machines and there are no API keys: anybody may call "
    "these models. Make one with `sheaf key new NAME`."
)


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def main() -> None:
    """Entry point of the command."""
    app()
