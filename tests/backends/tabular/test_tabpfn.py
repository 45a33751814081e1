"""The backend `tabpfn` against the library's own direct calls, on tiny checkpoints of four versions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from sheaf.api.tabular import TabularRequest
from sheaf.backends.tabpfn import TabPFNBackend
from sheaf_client.errors import InvalidRequestError
from tests.backends.conformance import CHECKPOINT_CHECKS, BackendConformance
from tests.backends.tabular.checkpoints import TINY, make_tabpfn
from tests.backends.tabular.table_cases import (
    ask,
    assert_same,
    classes,
    classify,
    fault_of,
    numbers,
    probabilities_of,
    quantiles_of,
    refusal,
    regress,
    values,
)

tabpfn = pytest.importorskip("tabpfn")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Running on CPU with more than 200"),
]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By version, a folder with its checkpoints: one for each task, the last version's for both."""
    folder = tmp_path_factory.mktemp("tabpfn")
    for version in TINY:
        for task in ("classifier", "regressor") if version != "tabpfn_v3_5" else ("classifier",):
            make_tabpfn(folder / version, version, task)
    return {version: folder / version for version in TINY}


@pytest.fixture(scope="module")
def backends(checkpoints: dict[str, Path]) -> dict[str, TabPFNBackend]:
    """All versions loaded side by side in one process."""
    return {version: loaded(folder) for version, folder in checkpoints.items()}


def loaded(path: Path, **settings: Any) -> TabPFNBackend:
    backend = TabPFNBackend(str(path), **{"n_estimators": 2, **settings})
    backend.load()
    return backend


def direct(folder: Path, task: str, **settings: Any) -> Any:
    """An estimator of the library's own as people make it, which keeps nothing between calls."""
    path = next(path for path in folder.iterdir() if task in path.name or path.suffix == ".safetensors")
    cls = tabpfn.TabPFNClassifier if task == "classifier" else tabpfn.TabPFNRegressor
    fixed = {"device": "cpu", "n_estimators": 2, "inference_precision": torch.float32}
    return cls(model_path=str(path), **{**fixed, **settings})


class TestTabPFN(BackendConformance):
    """For a version of each kind of checkpoint: of torch, and of safetensors."""

    backend_class = TabPFNBackend
    options: ClassVar[Mapping[str, Sequence[Any]]] = {"quantile_levels": [[0.5], [0.9, 0.25]]}
    import_changes = (*BackendConformance.import_changes, "random", "environment: MLX_ENABLE_TF32")
    exempt: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(CHECKPOINT_CHECKS[1:], "a checkpoint is one file, and is read whole or not at all"),
        "test_half_precision_is_near_and_another_dtype_is_refused": "see test_half_precision_loads",
    }

    @pytest.fixture(scope="class", params=["tabpfn_v2", "tabpfn_v3_5"])
    def folder(self, request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Path:
        return checkpoints[request.param]

    @pytest.fixture(scope="class")
    def settings(self, folder: Path) -> dict[str, Any]:
        return {"model_id": folder, "n_estimators": 2}

    @pytest.fixture(scope="class")
    def neighbor(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        other = tmp_path_factory.mktemp("other")
        make_tabpfn(other, "tabpfn_v2", "classifier", seed=1)
        return {"model_id": other, "n_estimators": 2}

    @pytest.fixture(scope="class")
    def requests(self) -> list[TabularRequest]:
        rows = numbers(50, seed=5, gaps=9)
        asked = [numbers(n, seed=n, gaps=1) for n in (1, 2, 7)]
        asked[2][0] = asked[0][0]  # equal rows of different callers
        found = [classify(query, table) for query in asked for table in (rows, rows[:30])]
        found += [regress(query, rows, quantile_levels=[0.9, 0.75]) for query in asked]
        return [*found, regress(asked[1], rows, output_mode="predictions")]

    @pytest.fixture(scope="class")
    def direct(self, folder: Path) -> Callable[[TabularRequest], dict[str, Any]]:
        def call(request: TabularRequest) -> dict[str, Any]:
            rows, query = (np.array(table, dtype=float) for table in (request.context_X, request.query_X))
            task = "classifier" if request.task == "classification" else "regressor"
            library = direct(folder, task).fit(rows, request.context_y)
            if task == "classifier":
                return {"probabilities": library.predict_proba(query), "n_query": len(query)}
            levels = list(request.quantile_levels)
            found = library.predict(query, output_type="full", quantiles=levels)
            quantiles = dict(zip(map(str, levels), found["quantiles"], strict=True))
            asked = request.output_mode == "quantiles"
            return {"predictions": found["mean"], "quantiles": quantiles if asked else None}

        return call

    @pytest.fixture(scope="class")
    def refused(self) -> list[tuple[TabularRequest, str, str]]:
        return [(ask([[1.0]], [[1.0]], ["a"]), "too_short", "/context_X")]

    @pytest.fixture(scope="class")
    def poison(self, refused: list[tuple[Any, str, str]]) -> list[tuple[TabularRequest, str, str]]:
        empty = ask([[1.0]], [[None], [None]], ["a", "b"])
        return [*refused, (empty, "unsupported", "/context_X")]


@pytest.mark.parametrize("version", TINY)
def test_classes_equal_the_librarys_own(
    version: str, backends: dict[str, TabPFNBackend], checkpoints: dict[str, Path]
) -> None:
    rows, query = numbers(60, gaps=9), numbers(12, seed=1, gaps=3)
    library = direct(checkpoints[version], "classifier").fit(rows, classes(rows))
    expected = library.predict_proba(query)
    assert expected.std(axis=0).max() > 0.01, "a checkpoint that says nothing proves nothing"
    for hit in (False, True):
        answer = backends[version].predict(classify(query, rows))
        np.testing.assert_allclose(answer.probabilities, expected, atol=2e-5)
        assert answer.predictions == library.predict(query).tolist()
        assert answer.classes == ["high", "low", "middle"]
        assert answer.metadata.context_hit is hit


@pytest.mark.parametrize("version", TINY)
def test_quantities_and_quantiles_equal_the_librarys_own(
    version: str, backends: dict[str, TabPFNBackend], checkpoints: dict[str, Path]
) -> None:
    rows, query, levels = numbers(60), numbers(12, seed=1), [0.9, 0.05, 0.5]
    library = direct(checkpoints[version], "regressor").fit(rows, values(rows))
    expected = library.predict(query, output_type="full", quantiles=levels)
    assert expected["mean"].std() > 0.01
    answer = backends[version].predict(regress(query, rows, quantile_levels=levels))
    np.testing.assert_allclose(answer.predictions, expected["mean"], rtol=2e-5)
    assert list(quantiles_of(answer)) == levels
    for found, column in zip(quantiles_of(answer).values(), expected["quantiles"], strict=True):
        np.testing.assert_allclose(found, column, rtol=2e-5, atol=2e-5)
    assert not answer.metadata.warnings


def test_categories_equal_those_of_a_frame(
    backends: dict[str, TabPFNBackend], checkpoints: dict[str, Path]
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=80),
            "colour": rng.choice(np.array(["red", "green", None], dtype=object), 80),
            "code": rng.choice([3.0, 7.0, 11.0], 80),
        }
    )
    labels = rng.integers(0, 2, 80).tolist()
    query = [[0.1, "red", 7.0], [None, "violet", 4.0], [-1.0, None, None], [2.0, "green", 11.0]]
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    request = ask(
        query, rows, labels, categorical_feature_indices=[2], feature_names=["size", "colour", "code"]
    )
    library = direct(checkpoints["tabpfn_v2"], "classifier", categorical_features_indices=[1, 2])
    asked = pd.DataFrame(query, columns=frame.columns).astype({"size": float, "code": float})
    expected = library.fit(frame, labels).predict_proba(asked)
    found = backends["tabpfn_v2"].predict(request.model_copy(update={"output_mode": "probabilities"}))
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-5)
    assert found.predictions == library.predict(asked).tolist()


def test_text_that_looks_like_numbers_is_text(backends: dict[str, TabPFNBackend]) -> None:
    digits = [[str(i), float(i % 3)] for i in range(40)]
    words = [[f"word {i:02}", float(i % 3)] for i in range(40)]
    labels = [i % 2 for i in range(40)]
    order = sorted(range(40), key=str)  # text has the order of text
    written = [[words[order.index(i)][0], digits[i][1]] for i in range(40)]
    one = backends["tabpfn_v2"].predict(
        ask([["7", 1.0], ["x", 1.0], [7, 1.0]], digits, labels, output_mode="probabilities")
    )
    same = backends["tabpfn_v2"].predict(
        ask([[written[7][0], 1.0], ["x", 1.0]], written, labels, output_mode="probabilities")
    )
    np.testing.assert_allclose(probabilities_of(one)[:2], probabilities_of(same), atol=1e-6)
    np.testing.assert_allclose(probabilities_of(one)[2], probabilities_of(one)[0], atol=1e-6)


@pytest.mark.parametrize("version", TINY)
def test_cached_equals_uncached(
    version: str, backends: dict[str, TabPFNBackend], checkpoints: dict[str, Path]
) -> None:
    rows, query = numbers(60, gaps=5), numbers(6, seed=2)
    forgetful = loaded(checkpoints[version], max_context_bytes=0)
    for request in (classify(query, rows), regress(query, rows)):
        backends[version].predict(request)
        cached, again = backends[version].predict(request), forgetful.predict(request)
        assert again.context_id is None
        assert_same(cached.model_copy(update={"context_id": None}), again)
    assert len(forgetful.contexts) == 0


def test_the_size_of_a_context_is_that_of_its_keys_and_values(backends: dict[str, TabPFNBackend]) -> None:
    backend = backends["tabpfn_v2"]
    sizes: list[int] = []
    for rows in (100, 800):
        before = backend.contexts.size
        answer = backend.predict(classify(numbers(1), numbers(rows, seed=77)))
        kept = backend.contexts.peek(("", str(answer.context_id))).fitted._estimator.executor_.kv_caches
        tensors = sum(
            part.nbytes for cache in kept for entry in cache.kv.values() for part in (entry.key, entry.value)
        )
        sizes.append(backend.contexts.size - before)
        assert tensors <= sizes[-1] < tensors + 2_000_000
    assert sizes[1] > sizes[0]


def test_a_checkpoint_for_one_task_refuses_the_other(checkpoints: dict[str, Path]) -> None:
    (path,) = checkpoints["tabpfn_v2"].glob("*classifier*")
    backend, rows = loaded(path), numbers(30)
    assert refusal(backend, regress(rows, rows)) == ("unsupported", "/task")
    assert backend.predict(classify(rows, rows)).n_query == 30


def test_contexts_beyond_the_model_are_refused(backends: dict[str, TabPFNBackend]) -> None:
    backend = backends["tabpfn_v2"]
    assert refusal(backend, ask([[1.0]], [[1.0]], ["a"])) == ("too_short", "/context_X")
    many = [[float(i)] for i in range(1001)]
    assert refusal(backend, ask([[1.0]], many, [0, 1, 1] * 333 + [1, 1])) == ("unsupported", "/context_X")
    assert refusal(backend, ask([[1.0]], many[:11], list(range(11)))) == ("unsupported", "/context_y")
    wide = [[float(i)] * 501 for i in range(3)]
    assert refusal(backend, ask(wide, wide, [0, 1, 0])) == ("unsupported", "/context_X/0")
    empty = ask([[1.0]], [[None], [None]], ["a", "b"])
    huge, huge_query = ask([[1.0]], [[1.0], [1e300]], ["a", "b"]), ask([[-1e19]], [[1.0], [2.0]], ["a", "b"])
    answers = backend.batch_predict([empty, huge, huge_query, classify(numbers(2), numbers(30))])
    assert fault_of(answers[0]) == ("unsupported", "/context_X")
    assert fault_of(answers[1]) == ("out_of_range", "/context_X/1/0")
    assert fault_of(answers[2]) == ("out_of_range", "/query_X/0/0")
    assert not isinstance(answers[3], Exception)


def test_limits_can_be_lifted(checkpoints: dict[str, Path]) -> None:
    backend = loaded(checkpoints["tabpfn_v2"], ignore_pretraining_limits=True, n_estimators=1)
    rows = numbers(1100, 2)
    assert backend.predict(ask(rows[:3], rows, classes(np.c_[rows, rows]))).n_context == 1100


def test_a_constant_target_is_its_value(backends: dict[str, TabPFNBackend]) -> None:
    answer = backends["tabpfn_v2"].predict(regress(numbers(3), numbers(30), context_y=[4.5] * 30))
    assert answer.predictions == [4.5] * 3
    assert answer.quantiles == {level: [4.5] * 3 for level in ("0.1", "0.5", "0.9")}


def test_half_precision_loads(backends: dict[str, TabPFNBackend], checkpoints: dict[str, Path]) -> None:
    rows, query = numbers(60), numbers(9, seed=1)
    half = loaded(checkpoints["tabpfn_v2"], inference_precision="bfloat16")
    settings = {"inference_precision": torch.bfloat16, "fit_mode": "fit_with_cache"}
    library = direct(checkpoints["tabpfn_v2"], "classifier", **settings).fit(rows, classes(rows))
    request = classify(query, rows)
    found, exact = (probabilities_of(backend.predict(request)) for backend in (half, backends["tabpfn_v2"]))
    np.testing.assert_allclose(found, library.predict_proba(query), atol=1e-6)
    assert np.abs(found - exact).max() > 1e-3
    with pytest.raises(TypeError, match=r"dtype=.* and inference_precision="):
        TabPFNBackend(dtype="float32", inference_precision="auto")
    with pytest.raises(ValueError, match="n_estimators"):
        TabPFNBackend(n_estimators=0)


def test_checkpoints_that_are_not_there_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name):
            loaded(path)
    assert list(tmp_path.iterdir()) == [], "nothing was downloaded in its place"


def test_a_folder_with_a_choice_asks_for_a_name(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    (path,) = checkpoints["tabpfn_v2"].glob("*classifier*")
    for name in ("a-classifier.ckpt", "b-classifier.ckpt"):
        (tmp_path / name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="2 checkpoints for classification"):
        loaded(tmp_path)


class Trap:
    """What a hostile checkpoint would hold: unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / "tabpfn-v2-classifier.ckpt"
    torch.save({"state_dict": {}, "config": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(ValueError, match="weights alone"):
        loaded(path)
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="no TabPFN model"):
        loaded(path)


def test_a_context_that_is_not_kept_is_refused(backends: dict[str, TabPFNBackend]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        backends["tabpfn_v2"].check(ask([[1.0]], context_id="0123456789"))
    assert fault_of(refused.value) == ("unsupported", "/context_id")


@pytest.mark.parametrize("version", TINY)
def test_an_empty_column_counts_as_missing(version: str, backends: dict[str, TabPFNBackend]) -> None:
    rows = numbers(40, 3)
    body = [[a, None, b] for a, _, b in rows.tolist()]
    fields: dict[str, Any] = {"output_mode": "probabilities", "categorical_feature_indices": [1]}
    asked = [ask([[0.5, cell, 1.0]], body, classes(rows), **fields) for cell in (None, "x", 7.0)]
    found = [probabilities_of(answer) for answer in backends[version].batch_predict(asked)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)
