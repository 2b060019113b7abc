"""`python -m train` is `srup train`."""

import sys

from sr.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
