"""`python -m sr.cli` is `srup`."""

from sr.cli import main

if __name__ == "__main__":
    main()
