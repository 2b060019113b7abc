"""`python -m benchmarks.report` makes the report."""

from benchmarks.report.command import main

if __name__ == "__main__":
    main()
