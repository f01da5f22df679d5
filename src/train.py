"""`python src/train.py ...` is `serfit train ...`: the same parser, the same options."""

import sys

from serfit.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
