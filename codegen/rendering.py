"""How templates are filled: strictly, so that a name that is missing is an error and not a hole."""

from __future__ import annotations

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def template_environment() -> jinja2.Environment:
    """The templates of this folder, with tags that leave no blank lines."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is source code and Markdown, and the schema is our own
    )
