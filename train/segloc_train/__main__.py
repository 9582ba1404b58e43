"""`python -m segloc_train`."""

from segloc_train.cli import main

main()
