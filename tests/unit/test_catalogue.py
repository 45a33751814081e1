"""What backends say of themselves is complete, true of the packages, and told by commands and pages."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from sheaf.backends.info import BackendInfo, Weights
from sheaf.catalogue import WIDTH, Entry, as_table, catalogue
from sheaf.cli import app
from sheaf.local import describe
from sheaf.lora import LoRAConfig
from sheaf.registry import find_backend
from sheaf.spec import ModelSpec
from tests.echoes import Echo

ROOT = Path(__file__).parents[2]
ENTRIES = [entry for entry in catalogue() if entry.class_path.startswith("sheaf.backends.")]
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def extras() -> dict[str, set[str]]:
    """The libraries of each extra, those of extras that it names included."""
    asked = tomllib.loads((ROOT / "server/pyproject.toml").read_text())["project"]["optional-dependencies"]

    def libraries(extra: str) -> set[str]:
        found: set[str] = set()
        for need in asked[extra]:
            if own := re.fullmatch(r"sheaf-serve\[(.+)\]", need):
                found |= {library for name in own[1].split(",") for library in libraries(name)}
            else:
                found.add(re.split(r"[><=\[]", need)[0].lower())
        return found

    return {name: libraries(name) for name in asked}


def own_module(entry: Entry) -> str:
    return find_backend(entry.name).__module__.rpartition(".")[2]


@each
def test_its_extra_brings_its_libraries(entry: Entry) -> None:
    cls = find_backend(entry.name)
    assert cls.info is not None
    brought = extras()[entry.extra]
    owners = packages_distributions()
    for library in cls.info.libraries:
        assert {owner.lower() for owner in owners[library]} & brought, library
    assert brought <= extras()["all"]


def test_the_environment_of_the_tests_has_every_extra() -> None:
    source = (ROOT / "noxfile.py").read_text()
    named = re.search(r'"tests": Environment\((.+?)torch=True', source, flags=re.DOTALL)
    assert named is not None
    given, words = extras(), re.findall(r'"([\w-]+)"', named[1])
    installed = {library for name in words for library in given.get(name, ())}
    for entry in ENTRIES:
        assert given[entry.extra] <= installed


@each
def test_the_terms_of_what_it_loads_by_default_are_known(entry: Entry) -> None:
    assert entry.title
    assert entry.papers
    assert all(url.startswith("https://") for url in (*entry.papers, *(w.card for w in entry.weights)))
    if entry.default_model is not None:
        assert entry.license
        assert entry.memory_mb
    made = find_backend(entry.name)()
    assert getattr(made, "model_id", None) == entry.default_model


@each
def test_it_has_a_page_that_names_it_and_its_default(entry: Entry) -> None:
    text = (ROOT / f"docs/backends/{own_module(entry)}.md").read_text(encoding="utf-8")
    assert f"`{entry.name}`" in text or f'"{entry.name}"' in text or f"serve {entry.name}" in text
    assert f"server[{entry.extra}]" in text
    if entry.default_model is not None:
        assert entry.default_model.partition("/")[2] in text


@each
def test_first_pages_say_its_title_beside_its_name_and_an_extra_that_brings_it(entry: Entry) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ", 1)[0]
    rows = [line for line in readme.splitlines() if line.startswith("| ") and f"`{entry.name}`" in line]
    (row,) = rows
    assert entry.title in row
    named = re.findall(r"`([\w-]+)`", row.split("|")[3])
    assert any(extras()[entry.extra] <= extras()[name] for name in named)


def test_the_page_of_all_backends_is_made_of_them() -> None:
    text = (ROOT / "docs/backends/index.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| [`")]
    assert rows == [page_row(entry) for entry in ENTRIES], "write docs/backends/index.md by what is expected"


def page_row(entry: Entry) -> str:
    """A backend in the table of docs/backends/index.md."""
    size = f"{entry.memory_mb:,} MB" if entry.memory_mb else ""
    terms = f"[{entry.license}]({find_card(entry)})" if entry.license else ""
    marks = [*["not commercial"] * (not entry.commercial), *["gated"] * entry.gated]
    can = [name for name in ("streams", "steps", "adapters", "contexts") if getattr(entry, name)]
    kind = f"[`{entry.model_type}`](../models/{entry.model_type}.md)"
    default = f"`{entry.default_model}`" if entry.default_model else ""
    cells = (
        *(f"[`{entry.name}`]({own_module(entry)}.md)", entry.title, kind, f"`{entry.extra}`", default, size),
        *(", ".join([terms, *marks]), ", ".join(can)),
    )
    return f"| {' | '.join(cells)} |"


def find_card(entry: Entry) -> str:
    info = find_backend(entry.name).info
    weights = info.weights_of(entry.default_model) if info is not None else None
    assert weights is not None
    return weights.card


def test_the_command_lists_them_in_a_table_and_as_json() -> None:
    table = CliRunner().invoke(app, ["backends"])
    assert table.exit_code == 0
    lines = table.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for entry in ENTRIES:
        (line,) = [line for line in lines if f" {entry.name} " in line]
        assert entry.model_type in line
    assert "not commercial, gated" in next(line for line in lines if " flux-img2img " in line)
    told = json.loads(CliRunner().invoke(app, ["backends", "--json"]).stdout)
    (flux,) = [one for one in told if one["name"] == "flux"]
    assert flux["operations"] == ["generate"]
    assert (flux["adapters"], flux["steps"], flux["streams"], flux["contexts"]) == (True, True, True, False)
    assert (flux["license"], flux["commercial"], flux["extra"]) == ("Apache-2.0", True, "diffusion")
    (dev,) = [weights for weights in flux["weights"] if weights["gated"]]
    assert "non-commercial" in dev["restriction"]


@each
def test_a_server_says_what_the_backend_does(entry: Entry) -> None:
    spec = ModelSpec(name="m", backend=entry.name, accept_license=True)
    told = describe(spec, ready=True)
    assert (told.title, told.streams, told.contexts) == (entry.title, entry.streams, entry.contexts)
    assert not told.adapters
    if entry.adapters:
        adapted = spec.model_copy(
            update={"lora": LoRAConfig.model_validate({"adapters": {"a": {"source": "a.safetensors"}}})}
        )
        assert describe(adapted, ready=True).adapters


def test_what_does_not_fit_into_the_table_is_cut() -> None:
    long = replace(ENTRIES[0], license="a" * 200)
    assert {len(line) <= WIDTH for line in as_table([long]).splitlines()} == {True}


def spec(backend: str, model_id: str, **fields: Any) -> ModelSpec:
    return ModelSpec(name="m", backend=backend, backend_kwargs={"model_id": model_id}, **fields)


@pytest.mark.parametrize(
    ("backend", "model_id", "why"),
    [
        ("flux", "black-forest-labs/FLUX.1-dev", "for non-commercial use; another is to be had"),
        ("flux", "black-forest-labs/flux.1-dev", "for non-commercial use"),
        ("sdxl", "stabilityai/sdxl-turbo", "for non-commercial use"),
        ("tabpfn", "v2.5", "for other use than commercial"),
        ("mace", "medium-omat-0", "Academic Software License allows no commercial use"),
    ],
)
def test_weights_for_some_uses_alone_are_loaded_once_that_is_accepted(
    backend: str, model_id: str, why: str
) -> None:
    with pytest.raises(ValidationError, match=why) as refused:
        spec(backend, model_id)
    said = str(refused.value)
    assert f"the weights {model_id} are under the licence" in said
    assert "say `accept_license: true` in the spec" in said
    assert re.search(r"Read https://\S+,", said)
    accepted = spec(backend, model_id, accept_license=True)
    assert ModelSpec.model_validate(accepted.model_dump()) == accepted


@pytest.mark.parametrize(
    ("backend", "model_id"),
    [
        ("flux", "black-forest-labs/FLUX.1-schnell"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("tabpfn", "v2"),
        ("mace", "mpa-0"),
        ("mace", "/models/medium-omat-0"),  # a folder: whose terms nobody but its owner knows
    ],
)
def test_other_weights_need_no_such_word(backend: str, model_id: str) -> None:
    assert spec(backend, model_id).backend_kwargs["model_id"] == model_id


def test_the_default_and_an_older_spelling_are_asked_for_too() -> None:
    with pytest.raises(ValidationError, match=r"FLUX\.1-dev are under"):
        ModelSpec(name="m", backend="flux-img2img")
    with pytest.raises(ValidationError, match="mh-1 are under"):
        ModelSpec(name="m", backend="mace", backend_kwargs={"model": "mh-1"})
    with pytest.raises(ValidationError, match=r"FLUX\.1-dev are under"):
        ModelSpec(name="m", backend="flux", model_type="multimodal_generation")
    with pytest.raises(ValueError, match="do not fit"):  # and not that of its terms
        ModelSpec(name="m", backend="flux", backend_kwargs={"no_such": 1}).make_backend()


def test_a_backend_from_elsewhere_may_say_it_too_or_nothing() -> None:
    class Told(Echo):
        """One with weights of its own."""

        info: ClassVar[BackendInfo | None] = BackendInfo(
            title="Told",
            extra="none",
            libraries=("no_such_library",),
            default_model="a/b",
            weights=(Weights(models=("a/*",), license="L", card="https://x", restriction="Not for sale."),),
        )
        model_id = "a/b"

    with pytest.raises(ValidationError, match=r"the weights a/b are under the licence 'L'\. Not for sale\."):
        ModelSpec(name="m", backend_cls=Told)
    assert ModelSpec(name="m", backend_cls=Told, accept_license=True).backend_class is Told
    assert ModelSpec(name="m", backend_cls=Echo).accept_license is False
