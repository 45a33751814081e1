"""`python -m sheaf` is the `sheaf` command."""

from sheaf.cli import main

main()
