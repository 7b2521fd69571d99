"""`python -m lesa` is the command `lesa`."""

from lesa.cli import main

main()
