"""What changes the time of the shipped network on a CPU: each lever against ONNX Runtime with its defaults.

Groups are timed one after the other, each together with the reference. Ratios are taken within rounds, for
equal numbers of output pixels; shares are of the measured peak of a matrix product.

    python -m benchmarks.levers engines threads options graph channels tiles --store
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.lib.limits import Peaks, cpu_peaks
from benchmarks.lib.options import store_option
from benchmarks.lib.results import store_result
from benchmarks.lib.timing import interleaved
from benchmarks.lib.work import counted_work
from sr.backends.base import Backend
from sr.backends.openvino import OpenVinoBackend
from sr.backends.ort import OrtBackend
from sr.network.ends import INPUT_NAME, OUTPUT_NAME
from sr.network.modelfile import shipped_onnx
from sr.upscale import Upscaler

SCALE = 3
SIZE = (180, 320)  # lr pixels
TILED_SIZE = (540, 960)
TILES = (64, 96, 128, 192, 256, 384, 512, 960)
NUM_FEATS = (24, 28, 32, 40, 48)
REFERENCE = "ONNX Runtime, defaults"

Action = Callable[[], object]
Levers = Iterator[
    tuple[str, Action, float, onnx.ModelProto]
]  # name, action, pictures that it upscales, graph


def engines(stack: ExitStack) -> Levers:
    """Yield engines and precisions."""
    from benchmarks.lib.runners import Case, open_runner

    graph = onnx.load(shipped_onnx(scale=SCALE))
    file = shipped_onnx(scale=SCALE)
    backends: dict[str, Backend] = {
        "backend openvino, fp32": OpenVinoBackend(file),
        "backend openvino, bf16": OpenVinoBackend(file, precision="bf16"),
        "backend openvino, int8": OpenVinoBackend(shipped_onnx(scale=SCALE, precision="int8")),
        "backend onnx, fp32": OrtBackend(file, device="cpu"),
    }
    for name, backend in backends.items():
        yield name, partial(_run, stack.enter_context(backend)), 1, graph
    case = Case(SCALE, *SIZE, 1, "fp32", "cpu")
    for name in ("torch-eager", "torch-channels-last"):
        yield name, partial(stack.enter_context(open_runner(name, case)), case.pictures()), 1, graph


def threads(stack: ExitStack) -> Levers:
    """Yield ways to use two cores: both for one picture, or one each."""
    graph = onnx.load(shipped_onnx(scale=SCALE))
    one = session(graph, intra_op_num_threads=1)
    pool = stack.enter_context(ThreadPoolExecutor(2))
    pair = [session(graph, intra_op_num_threads=1) for _ in range(2)]
    yield "one thread", partial(_feed, one), 1, graph
    yield "two sessions of one thread", lambda: list(pool.map(_feed, pair)), 2, graph
    yield "a batch of two", partial(_feed, session(graph), 2), 2, graph
    yield "a batch of four", partial(_feed, session(graph), 4), 4, graph


def options(stack: ExitStack) -> Levers:
    """Yield options of ONNX Runtime's sessions."""
    graph = onnx.load(shipped_onnx(scale=SCALE))
    levels = onnxruntime.GraphOptimizationLevel
    for name, settings in {
        "graph optimisation: basic": {"graph_optimization_level": levels.ORT_ENABLE_BASIC},
        "graph optimisation: extended": {"graph_optimization_level": levels.ORT_ENABLE_EXTENDED},
        "no memory arena": {"enable_cpu_mem_arena": False},
        "no memory pattern": {"enable_mem_pattern": False},
        "parallel execution": {"execution_mode": onnxruntime.ExecutionMode.ORT_PARALLEL},
    }.items():
        yield name, partial(_feed, session(graph, **settings)), 1, graph
    quiet = session(graph, **{"session.intra_op.allow_spinning": "0"})
    yield "threads do not spin", partial(_feed, quiet), 1, graph


def graph(stack: ExitStack) -> Levers:
    """Yield other graphs of the same function; one of them differs at picture borders."""
    for name, made in {
        "1x5 and 5x1 merged into 5x5": merged_5x5(onnx.load(shipped_onnx(scale=SCALE))),
        "pixel shuffle last, on bytes; 3x3 after it at lr size": shuffled_last(),
    }.items():
        yield name, partial(_feed, session(made)), 1, onnx.load(shipped_onnx(scale=SCALE))


def channels(stack: ExitStack) -> Levers:
    """Yield networks of other widths with random weights, to compare their shares of the peak."""
    from deploy.export import ExportSpec, onnx_from_weights
    from sr.network.checkpoint import Weights
    from sr.network.config import preset_config
    from sr.network.model import SRNet

    for num_feats in NUM_FEATS:
        config = preset_config("small", scale=SCALE, num_feats=num_feats, attention="none")
        made = onnx_from_weights(Weights(config, SRNet(config).state_dict(), {}), ExportSpec())
        name = f"{config.lo}, {config.mid}, {config.hi} channels"
        yield name, partial(_feed, session(made)), 1, made


def tiles(stack: ExitStack) -> Levers:
    """Yield tile sizes, as `srup upscale` runs them; work in halos counts as lost."""
    picture = _noise(1, TILED_SIZE)[0]
    pictures = TILED_SIZE[0] * TILED_SIZE[1] / (SIZE[0] * SIZE[1])
    for tile in TILES:
        upscaler = stack.enter_context(Upscaler(scale=SCALE, backend="onnx", tile=tile))
        yield (
            f"tiles of {tile} px",
            partial(upscaler, picture),
            pictures,
            onnx.load(shipped_onnx(scale=SCALE)),
        )


GROUPS: dict[str, Callable[[ExitStack], Levers]] = {
    "engines": engines,
    "threads": threads,
    "options": options,
    "graph": graph,
    "channels": channels,
    "tiles": tiles,
}


def session(model: onnx.ModelProto, **settings: Any) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU; settings with a dot are ONNX Runtime's configuration entries."""
    chosen = onnxruntime.SessionOptions()
    for name, value in settings.items():
        if "." in name:
            chosen.add_session_config_entry(name, value)
        else:
            setattr(chosen, name, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), chosen, providers=["CPUExecutionProvider"])


def merged_5x5(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make each 1x5 of a graph and the 5x1 after it one 5x5, and return it: exact, 1.6 times the work."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "Conv" and "expand.0" in node.input[1]:
            second = next(other for other in model.graph.node if node.output[0] in other.input)
            across, down = (numpy_helper.to_array(weights[conv.input[1]]) for conv in (node, second))
            exact = np.einsum("mcx,omy->ocyx", across[:, :, 0], down[:, :, :, 0], dtype=np.float64)
            merged = np.ascontiguousarray(exact, dtype=across.dtype)
            weights[second.input[1]].CopyFrom(numpy_helper.from_array(merged, second.input[1]))
            second.input[0] = node.input[0]
            for attribute in second.attribute:
                if attribute.name in ("pads", "kernel_shape"):
                    attribute.ints[:] = [2] * 4 if attribute.name == "pads" else [5, 5]
            model.graph.node.remove(node)
            model.graph.initializer.remove(weights[node.input[1]])
    return model


def shuffled_last() -> onnx.ModelProto:
    """Return the shipped graph with its last convolution before the pixel shuffle, which then moves bytes.

    A 3x3 on the shuffled picture is one on its s*s parts, of which each output reads few: exact,
    at the borders too, since a pixel outside lies in a part outside.
    """
    model = onnx.load(shipped_onnx(scale=SCALE))
    nodes = list(model.graph.node)
    at = next(index for index, node in enumerate(nodes) if node.op_type == "DepthToSpace")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight, bias = (stored[name] for name in nodes[at + 1].input[1:])
    # Levels, around mid-grey: what the graph adds and multiplies after the convolution goes into it.
    added = {
        "last.weight": 255 * _on_parts(weight, SCALE),
        "last.bias": np.repeat(255 * bias + np.float32(127.5), SCALE**2),
        "last.0": np.float32(0),
        "last.255": np.float32(255),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    for tensor in [tensor for tensor in model.graph.initializer if "refine" in tensor.name]:
        model.graph.initializer.remove(tensor)
    del model.graph.node[at:]
    model.graph.node.extend(
        [
            helper.make_node("Conv", [nodes[at].input[0], "last.weight", "last.bias"], ["sum"], pads=[1] * 4),
            helper.make_node("Round", ["sum"], ["rounded"]),
            helper.make_node("Clip", ["rounded", "last.0", "last.255"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], ["levels"], to=TensorProto.UINT8),
            helper.make_node("DepthToSpace", ["levels"], ["shuffled"], blocksize=SCALE, mode="CRD"),
            helper.make_node("Transpose", ["shuffled"], [OUTPUT_NAME], perm=[0, 2, 3, 1]),
        ]
    )
    return model


def _on_parts(weight: np.ndarray, scale: int) -> np.ndarray:
    """Return weights (O s^2, C s^2, 3, 3) that do before the shuffle what `weight` does after it."""
    outputs, inputs = weight.shape[:2]
    parts = np.zeros((outputs, scale, scale, inputs, scale, scale, 3, 3), np.float32)
    for row, column, y, x in np.ndindex(scale, scale, 3, 3):
        lr_y, part_y = divmod(row + y - 1, scale)
        lr_x, part_x = divmod(column + x - 1, scale)
        parts[:, row, column, :, part_y, part_x, lr_y + 1, lr_x + 1] += weight[:, :, y, x]
    return parts.reshape(outputs * scale**2, inputs * scale**2, 3, 3)


@cache
def _noise(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def _run(backend: Backend) -> object:
    return list(backend.run([_noise(1, SIZE)]))


def _feed(opened: onnxruntime.InferenceSession, count: int = 1) -> np.ndarray:
    return opened.run([OUTPUT_NAME], {INPUT_NAME: _noise(count, SIZE)})[0]


def measure(group: str, peaks: Peaks, *, rounds: int) -> dict[str, Any]:
    """Return the rows of a group, and warnings."""
    shipped = onnx.load(shipped_onnx(scale=SCALE))
    with ExitStack() as stack:
        rows = list(GROUPS[group](stack))
        actions = {REFERENCE: partial(_feed, session(shipped))} | {name: act for name, act, *_ in rows}
        timings = interleaved(actions, rounds=rounds)
    found = []
    for name, _, pictures, made in [(REFERENCE, None, 1.0, shipped), *rows]:
        macs = counted_work(made, height=SIZE[0], width=SIZE[1]).macs * pictures
        ratio = timings.ratio(name, REFERENCE)
        milliseconds = timings.latency_ms(name)["median"] / pictures
        found.append(
            {
                "what": name,
                "ms_for_a_picture": round(milliseconds, 1),
                "time_ratio": {at: round(value / pictures, 3) for at, value in ratio.items()},
                "share_of_peak": round(peaks.share(macs, milliseconds * pictures / 1e3), 3),
                "share_of_peak_best": round(peaks.share(macs, min(timings.seconds[name])), 3),
            }
        )
    return {"group": group, "rows": found, "warnings": timings.warnings()}


@click.command(help=__doc__)
@click.argument("groups", nargs=-1, type=click.Choice(list(GROUPS)))
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
@store_option
def main(groups: tuple[str, ...], rounds: int, store: bool) -> None:
    results, peaks = [], cpu_peaks()
    for group in groups or GROUPS:
        results.append(measure(group, peaks, rounds=rounds))
        for row in results[-1]["rows"]:
            click.echo(
                f"{group:9} {row['what']:55} {row['time_ratio']['median']:6.3f} "
                f"({row['time_ratio']['p10']:.2f} to {row['time_ratio']['p90']:.2f})  "
                f"{row['share_of_peak']:.2f} of the peak, at best {row['share_of_peak_best']:.2f}"
            )
    if store:
        name = "levers" if len(results) == len(GROUPS) else f"levers-{'-'.join(groups)}"
        store_result(
            name,
            {"scale": SCALE, "size": SIZE, "rounds": rounds, "peaks": peaks.as_dict(), "groups": results},
        )


if __name__ == "__main__":
    main()
