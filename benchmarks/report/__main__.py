"""`python -m benchmarks.report` makes the report."""

from benchmarks.report import main

if __name__ == "__main__":
    main()
