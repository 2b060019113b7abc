"""The report of all measurements of a machine: `python -m benchmarks.report`."""
