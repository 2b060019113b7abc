"""Many files on a Ray cluster: `connection`, `cluster` (hands out the jobs) and `worker` (does them)."""
