"""`srup upscale --ray`: a planned run on a Ray cluster, and what is printed of it."""

from __future__ import annotations

from sr.cli.comparison import print_comparison
from sr.cli.console import terminal
from sr.cli.failures import written_failures
from sr.cli.planning import Opener, PlannedRun, worker_plan
from sr.cli.printing import print_summary, printer
from sr.cli.request import UpscaleRequest
from sr.jobs.ray.cluster import ray_cluster
from sr.jobs.run import RunSummary, run_jobs


def upscale_on_ray(request: UpscaleRequest, planned: PlannedRun, opener: Opener | None) -> RunSummary:
    """Run what is planned on the cluster that was asked for, and print what happens.

    Raises:
        BackendError: as `sr.jobs.ray.cluster.ray_cluster`.
    """
    assert request.ray is not None
    terminal.message("starting the workers of the Ray cluster")
    with ray_cluster(request.ray, worker_plan(planned, opener)) as cluster:
        with (
            written_failures(request.failures, folder=request.folder) as failures,
            printer(
                cluster.description, as_json=request.as_json, failures=failures, shard=request.shard
            ) as listener,
        ):
            summary = run_jobs(
                planned.worklist,
                cluster.upscale_files,
                listener,
                warning=cluster.warning,
                notes=cluster.notes,
                most_failures=request.max_failures,
            )
        description = cluster.description
    print_summary(planned.worklist, summary, description, as_json=request.as_json)
    if request.compare is not None and not summary.interrupted:
        print_comparison(request.compare, planned, summary, description, as_json=request.as_json)
    return summary
