"""What networks of other shapes take on ONNX Runtime, as multiples of the time that `small` takes.

Each network has random weights, is folded and exported as the shipped ones are, and runs on one thread. All
run in turn; what counts is the processor time of the process, so other work on the machine matters little.

    python -m benchmarks.shapes --scale 2 --variant fuse:fusion=True --variant square:asymmetric=False
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import click
import numpy as np

from benchmarks.ablate import parse_variant
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import spent

HEIGHT, WIDTH = 180, 320  # a 640x360 frame at x2; figures of other scripts are of the same picture


def session_of(config: Any) -> Any:
    """Return an ONNX Runtime session of one thread for a network of this configuration."""
    import onnxruntime

    from deploy.export import ExportSpec, onnx_from_weights
    from sr.network.checkpoint import Weights
    from sr.network.model import SRNet

    # Frozen gates and norms are folded away: they take no time whatever their values are.
    model = SRNet(replace(config, norm="none"))
    exported = onnx_from_weights(Weights(model.config, model.state_dict()), ExportSpec())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        exported.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@click.command(help=__doc__)
@click.option("--scale", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=10, show_default=True)
@click.option("--variant", "variants", multiple=True, required=True, help="NAME:FIELD=VALUE,...")
@click.option("--store/--no-store", default=True, show_default=True, help="Keep the result.")
def main(scale: int, rounds: int, variants: tuple[str, ...], store: bool) -> None:
    from sr.network.config import preset_config
    from sr.network.model import model_cost

    changes = {"small": {}} | dict(map(parse_variant, variants))
    configs = {
        name: preset_config("small", scale=scale, **({"attention": "frozen"} | change))
        for name, change in changes.items()
    }
    sessions = {name: session_of(config) for name, config in configs.items()}
    image = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            cpu = spent(lambda session=session: session.run(None, {"image": image})).cores
            if turn:
                seconds[name].append(cpu)
    rows = []
    for name, config in configs.items():
        cost = model_cost(config)
        ratios = [mine / base for mine, base in zip(seconds[name], seconds["small"], strict=True)]
        rows.append(
            {
                "variant": name,
                "settings": changes[name],
                "params": cost.params,
                "macs_per_lr_px": cost.macs_per_lr_px,
                "receptive_field_radius": config.receptive_field_radius,
                "time_of_small": round(statistics.median(ratios), 3),
            }
        )
        print(f"{name:20} {cost.macs_per_lr_px:8,} multiply-adds  {rows[-1]['time_of_small']:.3f} of small")
    if store:
        store_result(f"shapes-x{scale}", {"rounds": rounds, "rows": rows})


if __name__ == "__main__":
    main()
