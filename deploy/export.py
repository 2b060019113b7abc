"""Trained weights to ONNX files.

Owns what is inside a file besides the network: image input and output, precision, metadata.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from deploy.card import model_card
from deploy.fold import fold
from deploy.foreign import onnx_from_others
from deploy.freezing import NOTABLE_LOSS_DB, freezing_cost
from deploy.half import may_hide_overflow, without_hidden_overflow
from deploy.quantize import calibration_pictures, quantized
from sr.errors import ModelError
from sr.files import atomic_write
from sr.network.checkpoint import Weights, descriptor_from_weights, load_weights
from sr.network.colour import upscale_rgb
from sr.network.config import PRESETS
from sr.network.deployed import restored_weights
from sr.network.descriptor import ENDS, IO, ModelDescriptor, Precision
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME, Conventions
from sr.network.foreign.describe import is_others
from sr.network.model import SRNet, frozen_attention
from sr.network.modelfile import onnx_name, shipped_scales, shipped_weights

OPSET = 20  # the exporter's own; DepthToSpace and all else that we use is unchanged since 18

# Above this no float32 is finite any more.
_FLOAT32_MAX = 3.4028234663852886e38


Note = Callable[[str], None]


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class ExportSpec:
    """Kind of file to write.

    Attributes:
        precision: of the convolutions; image input and output are always computed in float32.
        io: "uint8" is NHWC [0, 255], with scaling, rounding and clipping in the graph; "float32"
            is NCHW [0, 1], not clipped.
        attention: "frozen" folds the running mean of the gates into the weights, "dynamic" keeps
            gates that depend on the picture.
        calibration: for int8, a folder of lr pictures on which ranges are measured.
        licence: of the weights, for the metadata; None keeps what the weights say, which may be nothing.
        data_note: what the training data are, for the metadata; None keeps what the weights say.
        restore: strength of restoration; above 0 the weights have a partner, see `sr.network.pair`.
        conventions: stated of a network of another program.
    """

    precision: Precision = "fp32"
    io: IO = "uint8"
    attention: str = "frozen"
    calibration: Path | None = None
    licence: str | None = None
    data_note: str | None = None
    restore: float = 0.0
    conventions: Conventions | None = None


class ExportedNet(nn.Module):
    """The folded network with RGB input and RGB output, as the file holds it.

    In half precision the body is float16 and both ends are float32, and there is a second output, (N,)
    float32: 1 where all values of the picture were finite before clipping, else 0. That proves that
    nothing overflowed, see `deploy.half`.
    """

    def __init__(self, net: SRNet, spec: ExportSpec) -> None:
        super().__init__()
        self.spec = spec
        self.net = without_hidden_overflow(net).half() if spec.precision == "fp16" else net

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Upscale; `ExportSpec.io` says layout and range of input and output."""
        uint8, half = self.spec.io == "uint8", self.spec.precision == "fp16"
        lr = image.float().permute(0, 3, 1, 2) / 255 if uint8 else image  # (N, 3, H, W)
        sr = upscale_rgb(self.net, lr)
        finite = (sr.abs().mean((1, 2, 3)) <= _FLOAT32_MAX).float() if half else None  # (N,)
        if uint8:
            sr = (sr * 255).permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)
        return sr if finite is None else (sr, finite)


def export_files(
    name: str,
    scales: Sequence[int],
    out_dir: Path,
    spec: ExportSpec,
    *,
    note: Note = _ignore,
    cards: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[Path]:
    """Export the requested scales, or all available ones; yield each path once it is written.

    Args:
        name: a preset with shipped weights, or the path of a weights file.
        scales: upscaling factors; empty means all.
        out_dir: folder; created if missing.
        spec: kind of file.
        note: called with each remark for the user.
        cards: write a model card beside each file, with the suffix `.md`.
        progress: called with phase and share done while a network of another program is probed.

    Raises:
        ModelError: the weights are missing, damaged, or have another scale.
        OSError: a file cannot be written.
    """
    for weights in _weights_files(name, scales):
        path = export_onnx(weights, out_dir, spec, note=note, progress=progress)
        if cards:
            properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
            descriptor = ModelDescriptor.from_properties(properties, source=str(path))
            with atomic_write(path.with_suffix(".md")) as temporary:
                temporary.write_text(model_card(descriptor, file_name=path.name), encoding="utf-8")
        yield path


def _weights_files(name: str, scales: Sequence[int]) -> Iterator[Path]:
    if name in PRESETS:
        yield from (shipped_weights(scale=scale, preset=name) for scale in scales or shipped_scales(name))
        return
    if is_others(Path(name)):
        if scales:
            raise ModelError(f"{name}: has a scale of its own; drop --scale")
        yield Path(name)
        return
    has = load_weights(name).config.scale
    if any(scale != has for scale in scales):
        raise ModelError(f"{name}: holds weights for scale {has}, not {', '.join(map(str, scales))}")
    yield Path(name)


def export_onnx(
    weights_path: Path,
    out_dir: Path,
    spec: ExportSpec,
    *,
    note: Note = _ignore,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Export one file and check it; return its path.

    Args:
        weights_path: of trained weights.
        out_dir: folder; created if missing.
        spec: kind of file.
        note: called with each remark for the user, e.g. what freezing the attention cost.
        progress: called with phase and share done while a network of another program is probed.

    Raises:
        ModelError: the weights cannot be read, or do not allow `spec`.
        OSError: the file cannot be written.
    """
    if is_others(weights_path):
        return _export_others(weights_path, out_dir, spec, progress)
    weights = restored_weights(weights_path, spec.restore)
    model = onnx_from_weights(weights, spec)
    if spec.attention == "frozen" and weights.config.attention == "dynamic":
        cost = freezing_cost(weights.build())
        if cost > NOTABLE_LOSS_DB:
            note(
                f"{weights_path}: freezing the attention costs {cost:.2f} dB on synthetic pictures; "
                "fine-tune with frozen attention (a stage of srup train), or export with --attention dynamic"
            )
    if spec.precision == "fp16" and may_hide_overflow(_exported_net(weights, spec).net):
        note(f"{weights_path}: its weights are so large that half precision may overflow unnoticed; use fp32")
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / onnx_name(
        preset=weights.preset,
        scale=weights.config.scale,
        precision=spec.precision,
        io=spec.io,
        attention=spec.attention,
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return path


def _export_others(
    path: Path, out_dir: Path, spec: ExportSpec, progress: Callable[[str, float], None] | None
) -> Path:
    """Write a network of another program as a file of ours.

    Raises:
        ModelError: the network is refused, or the file cannot have `spec`.
    """
    if spec.attention != "frozen" or spec.data_note is not None:
        raise ModelError(f"{path}: --attention and --data-note are for networks that srup trained")
    model, described = onnx_from_others(
        path,
        precision=spec.precision,
        io=spec.io,
        licence=spec.licence,
        stated=spec.conventions,
        progress=progress,
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    out = out_dir / onnx_name(
        preset=path.stem, scale=described.scale, precision=described.precision, io=spec.io, attention=""
    )
    with atomic_write(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return out


def onnx_from_weights(weights: Weights, spec: ExportSpec) -> onnx.ModelProto:
    """Return the checked ONNX model of `weights`.

    Raises:
        ModelError: `spec` has dynamic attention, but the weights were trained with frozen gates; or int8
            without calibration, or with float32 IO.
    """
    attention = _exported_attention(weights, spec)
    model = _torch_export(_exported_net(weights, spec), uint8=spec.io == "uint8")
    descriptor = descriptor_from_weights(
        _stated(weights, spec), precision=spec.precision, ends=ENDS[spec.io], attention=attention
    )
    if spec.calibration is not None and spec.precision == "int8":
        model = quantized(model, calibration_pictures(spec.calibration))
        # Values rounded to 8 bits are equal in all tiles only where everything that they depend on is.
        descriptor = replace(descriptor, halo=descriptor.receptive_field_radius)
    onnx.helper.set_model_props(model, descriptor.to_properties())
    onnx.checker.check_model(model, full_check=True)
    return model


def _exported_net(weights: Weights, spec: ExportSpec) -> ExportedNet:
    net = weights.build()
    return ExportedNet(fold(net if spec.attention == "dynamic" else frozen_attention(net)), spec).eval()


def _exported_attention(weights: Weights, spec: ExportSpec) -> str:
    """Return the attention of the file; refuse what the weights do not allow."""
    if spec.precision == "bf16":
        raise ModelError("there are no bf16 files: backend openvino computes the fp32 file in bf16")
    if spec.precision == "int8" and (spec.calibration is None or spec.io != "uint8"):
        raise ModelError("an int8 file has uint8 IO, and needs pictures to measure ranges on (--calibrate)")
    attention = weights.config.attention
    if spec.attention == "dynamic" and attention != "dynamic":
        raise ModelError(
            f"weights with {attention} attention cannot be exported with dynamic attention; "
            "use --attention frozen"
        )
    return "frozen" if spec.attention == "frozen" and attention == "dynamic" else attention


def _stated(weights: Weights, spec: ExportSpec) -> Weights:
    """Return the weights with the licence and the note on the data that `spec` states."""
    if spec.licence is not None:
        weights = replace(weights, licence=spec.licence)
    if spec.data_note is not None:
        weights = replace(weights, training=weights.training | {"data": spec.data_note})
    return weights


def _torch_export(module: ExportedNet, *, uint8: bool) -> onnx.ModelProto:
    # No constant of the network equals these sizes, so that a size fixed by mistake would show.
    shape = (2, 19, 23, 3) if uint8 else (2, 3, 19, 23)
    example = torch.zeros(shape, dtype=torch.uint8 if uint8 else torch.float32)
    names = {0: "N", 1: "H", 2: "W"} if uint8 else {0: "N", 2: "H", 3: "W"}
    outputs = [OUTPUT_NAME] + ([FINITE_NAME] if module.spec.precision == "fp16" else [])
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=outputs,
            dynamic_shapes=(dict.fromkeys(names, torch.export.Dim.DYNAMIC),),
            verbose=False,
        )
    if program is None:
        raise ModelError("PyTorch's exporter returned no model")
    model = program.model_proto
    _name_axes(model, names)
    _drop_tracing_notes(model)
    return model


def _name_axes(model: onnx.ModelProto, names: dict[int, str]) -> None:
    """Name the free axes of the input N, H and W; the exporter numbers them."""
    for axis, name in names.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis == 0:
                dim.dim_param = "N"
            elif dim.dim_param:
                dim.dim_param = f"{output.name}_{axis}"
    del model.graph.value_info[:]  # refers to the exporter's names; runtimes infer it again


def _drop_tracing_notes(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths that the exporter leaves on nodes."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    model.doc_string = ""


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress prints and deprecation notes off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
