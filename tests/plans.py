"""TensorRT plans as `srup export --trt` leaves them; what is in them nobody here can run."""

import hashlib
from pathlib import Path

from sr.backends.tensorrt.manifest import EngineManifest, Identity


def write_plan(
    folder: Path, *, onnx: Path, built_by: str = "10.13.3.9", content: bytes = b"plan", **changes
) -> Path:
    """Write a plan and its manifest into a folder; return the path of the plan.

    Args:
        folder: made if need be.
        onnx: file that the plan is for.
        built_by: version of TensorRT.
        content: of the plan.
        changes: fields of its `Identity` that differ from those of an L4's at x2.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "onnx_sha256": hashlib.sha256(onnx.read_bytes()).hexdigest(),
        "module": "tensorrt",
        "module_version": built_by,
        "platform": "Linux x86_64",
        "cuda_major": 13,
        "scale": 2,
        "precision": "fp16",
        "tile": 512,
        "batch": 4,
        "builder_level": None,
        "compatible": False,
        "gpu": "NVIDIA L4, SM89",
        "targets": (),
    }
    identity = Identity.from_dict(fields | changes)
    manifest = EngineManifest(
        identity=identity,
        onnx_name=onnx.name,
        built_by=built_by,
        srup_version="0.2.0",
        built="2026-01-01T00:00:00+00:00",
        build_seconds=60.0,
        plan_bytes=len(content),
        plan_sha256=hashlib.sha256(content).hexdigest(),
    )
    path = folder / f"{identity.stem(onnx.name)}.plan"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(manifest.to_json(), encoding="utf-8")
    return path
