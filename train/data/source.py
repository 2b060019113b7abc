"""The pictures of a run, all checked before it starts: every problem is named at once."""

from __future__ import annotations

from sr.errors import DataError
from train.config import TrainConfig
from train.data.pairs import load_pair_list
from train.data.patches import PatchSource, named, pair_problems
from train.distributed import Group
from train.schedule import Schedule


def checked_source(config: TrainConfig, group: Group) -> PatchSource:
    """Read the training pictures, and look at those of the validation lists.

    Raises:
        DataError: in every process, if lists or pictures cannot be read or do not fit.
    """
    scale = config.model.scale
    patch_size = max(part.patch_size for part in Schedule(config, patches_per_epoch=1).parts)
    train, *others = (load_pair_list(path) for path in (config.train_list, *config.val_lists))
    problems: list[str] = []
    if group.local_rank == 0:
        problems = [problem for pairs in others for problem in pair_problems(pairs, scale=scale)]
    problems = group.from_machine_leader(problems)
    try:
        source = PatchSource.shared(train, scale=scale, patch_size=patch_size, group=group)
    except DataError as error:
        raise DataError("; ".join([str(error), *([named(problems)] if problems else [])])) from error
    if problems:
        raise DataError(named(problems))
    return source
