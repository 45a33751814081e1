"""What another process raised, out of what Ray tells of it."""

from __future__ import annotations

import traceback

import pytest

from sheaf.ray_errors import MAX_CAUSE, cause_of


def told(error: Exception) -> str:
    """A traceback within another, as Ray gives those of its replicas."""
    try:
        try:
            raise error
        except Exception:  # noqa: BLE001 - of any kind
            raise RuntimeError(traceback.format_exc()) from None
    except RuntimeError:
        inner = traceback.format_exc()
    return f"\x1b[36mray::ServeReplica:a:a.initialize()\x1b[39m (pid=1, repr=<object>)\n{inner}"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("model must be one of a, b"), "ValueError: model must be one of a, b"),
        (KeyError("x"), "KeyError: 'x'"),
        (OSError("no network.\n    Check it.\nSee more."), "OSError: no network. Check it. See more."),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_the_cause_is_the_innermost_error_on_one_line(error: Exception, cause: str) -> None:
    assert cause_of(told(error)) == cause


def test_an_error_that_ray_raises_from_ours_hides_nothing() -> None:
    ours = '  File "pyarrow/error.pxi", line 92, in check\nOSError: [Errno 28] No space left on device'
    link = "The above exception was the direct cause of the following exception:"
    for frame in ("", '  File "a/map.py", line 1, in apply\n    call()\n'):
        rays = (
            f"ray::MapWorker() (pid=1)\n{frame}ray.exceptions.UserCodeException: Failed.\nTo change retries"
        )
        assert cause_of(f"{ours}\n\n{link}\n\n{rays}") == "OSError: [Errno 28] No space left on device"
    own = '  File "a.py", line 1, in load\nValueError: no such model'
    assert cause_of(f"KeyError: 'x'\n\n{link}\n\n{own}") == "ValueError: no such model"


def test_text_without_a_traceback_is_its_first_line() -> None:
    assert (
        cause_of("The actor died unexpectedly.\n\tclass_name: A\n\tactor_id: 1")
        == "The actor died unexpectedly."
    )
    assert cause_of("") == ""


def test_a_long_cause_is_cut() -> None:
    assert cause_of(told(ValueError("x" * 10_000))) == f"ValueError: {'x' * (MAX_CAUSE - 12)} …"
