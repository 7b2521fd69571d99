"""`python -m lesa` is the command `lesa`."""

from lesa.cli.main import main

main()
