"""Cost of freezing the attention gates: Y-PSNR with live gates, frozen gates, and after fine-tuning.

python -m benchmarks.freezing --list Set5/x2.json live.safetensors [fine_tuned.safetensors]
"""

from __future__ import annotations

from pathlib import Path

import click

from sr.network.checkpoint import load_weights
from sr.network.model import frozen_attention
from train.evaluate import evaluate, upscale_with


@click.command(help=__doc__)
@click.option("--list", "pair_list", type=click.Path(path_type=Path, exists=True), required=True)
@click.argument("live", type=click.Path(path_type=Path, exists=True))
@click.argument("tuned", type=click.Path(path_type=Path, exists=True), required=False)
def main(pair_list: Path, live: Path, tuned: Path | None) -> None:
    net = load_weights(live).build()
    if net.config.attention != "dynamic":
        raise click.ClickException(f"{live}: attention is {net.config.attention}, need dynamic")
    nets = {"live gates": net, "frozen at once": frozen_attention(net)}
    if tuned is not None:
        nets["frozen, fine-tuned"] = load_weights(tuned).build()
    for name, candidate in nets.items():
        quality = evaluate(upscale_with(candidate), pair_list, scale=net.config.scale)
        click.echo(f"{name:20} {quality.psnr_y:.4f} dB")


if __name__ == "__main__":
    main()
