"""`python -m serfit ...` is `serfit ...`, as torchrun wants it: `torchrun --nproc-per-node 2 -m serfit train ...`."""

from serfit.cli import main

if __name__ == "__main__":
    main()
