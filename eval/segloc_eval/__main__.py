"""`python -m segloc_eval`: the same as the `segloc-eval` command."""

from segloc_eval.cli import main

if __name__ == "__main__":
    main()
