"""`python -m codegen [--check]`: regenerate everything from schema/, or fail where anything differs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codegen.generate import REPOSITORY, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="codegen", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 where generated files differ"
    )
    parser.add_argument("--schema", type=Path, default=REPOSITORY / "schema", help="the schema folder")
    arguments = parser.parse_args()
    return run(arguments.schema, REPOSITORY, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
