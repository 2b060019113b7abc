"""Several processes in one training run: one per GPU with NCCL, or several on CPUs with gloo.

Owns how processes are started, what they tell each other besides gradients, and how the death of
one is reported. Started by `torchrun`, possibly on several machines, a run takes its place in that
group; started otherwise on a machine with several GPUs, it starts one process for each through
PyTorch's elastic launcher.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
import os
import secrets
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sr import errors
from sr.errors import TrainingError
from sr.processor import available_cores

T = TypeVar("T")

# PyTorch 2.13 renamed what switches off the broadcast of buffers before each forward pass.
_BUFFERS_STAY = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)

# A process that dies breaks the connections of the others. They wait, so that the launcher, which looks
# ten times a second, finds and reports the one that died by itself.
_SECONDS_TO_DIE_FIRST = 2


class ProcessDied(TrainingError):
    """A process of the run was killed, or failed for a reason that is not the run's."""


@dataclass(frozen=True)
class Group:
    """This process's place among those of a run.

    Attributes:
        rank: number of this process; 0 alone writes files and prints.
        world: number of processes.
        local_rank: number of this process on its machine.
        device: what it computes on.
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Say whether this process writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` with gradients averaged over the processes.

        Buffers are not broadcast: `average_buffers` averages them when they are needed.
        """
        if self.world == 1:
            return model
        settings: dict[str, Any] = {_BUFFERS_STAY: False}
        if self.device.type == "cuda":
            settings["device_ids"] = [self.device.index]
        # A 1x1 kernel has the same bytes in both memory formats, but not the same strides.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(model, **settings)

    def average_buffers(self, model: nn.Module, *, share: float | None = None) -> None:
        """Make the floating-point buffers of `model` the mean of those of all processes.

        Running means are linear in what they average. So this equals what one process would have
        after any number of batches that were shared evenly, or after a single one of which this
        process had `share`.
        """
        if self.world > 1:
            for buffer in (b for b in model.buffers() if b.is_floating_point()):
                buffer *= 1 / self.world if share is None else share
                dist.all_reduce(buffer)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world > 1:
            dist.all_reduce(value := value.clone())
        return value

    def any(self, flag: bool) -> bool:
        """Say whether `flag` is set in any process."""
        if self.world == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def from_machine_leader(self, value: T) -> T:
        """Return the value of the process with local rank 0 on the same machine."""
        leader = self.rank - self.local_rank  # the ranks of a machine follow each other
        return self.gather(value)[leader]

    def barrier(self) -> None:
        """Wait for all processes."""
        self.gather(None)


def single() -> Group:
    """Return the group of a run with one process: CUDA where there is a device, else the CPU."""
    return Group(0, 1, 0, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group that the launcher describes in the environment; a group of one without a launcher.

    Release wrapped models before leaving the block.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield single()
        return
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if cuda := torch.cuda.is_available():
        torch.cuda.set_device(local)
    else:
        per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        torch.set_num_threads(max(1, available_cores() // per_machine))
    # DistributedDataParallel imports this module, whose functions keep the current group as a default
    # argument; imported later, it would keep ours alive for ever.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Group(rank, world, local, torch.device("cuda", local) if cuda else torch.device("cpu"))
    except RuntimeError:
        time.sleep(_SECONDS_TO_DIE_FIRST)
        raise
    finally:
        # The group's threads end with the last reference to it, which a wrapped model may hold in a cycle.
        # A thread that outlives Python and then releases a tensor aborts the process.
        gc.collect()
        dist.destroy_process_group()


def launched_by_torchrun() -> bool:
    """Say whether this process already is one of a group."""
    return "LOCAL_RANK" in os.environ


def launch(function: Callable[..., None], *arguments: object, processes: int) -> int | None:
    """Run `function(*arguments)` in several processes on this machine and wait for them.

    The function must be importable and the arguments picklable; `joined` gives each process its place.

    Returns:
        The number of the signal that asked this process or one of the others to stop, None if none
        did. All were told, and have ended.

    Raises:
        TrainingError: the function raised a `SrupError`; this is its text.
        ProcessDied: a process failed otherwise or was killed; the others were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=secrets.token_hex(8),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    logging.disable(logging.ERROR)  # the launcher's own log; our error says what failed
    try:
        elastic_launch(config, function)(*arguments)
    except ChildFailedError as error:
        if (status := cast(Any, error).get_first_failure()[1].exitcode) > 128:
            return int(status) - 128  # a process that was asked to stop ends with this status
        raise _what_failed(cast(Any, error), processes) from error
    except SignalException as error:
        return int(error.sigval)
    finally:
        logging.disable(logging.NOTSET)
    return None


def _what_failed(error: Any, processes: int) -> TrainingError:
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return ProcessDied(f"process {rank} of {processes} was killed ({name}); the others were stopped")
    message = failure.message["message"] if isinstance(failure.message, dict) else str(failure.message)
    kind, _, text = message.partition(": ")
    ours = isinstance(getattr(errors, kind, None), type)
    return TrainingError(text) if ours else ProcessDied(f"process {rank} of {processes} failed: {message}")
