"""Engines: FP16 TensorRT and TensorRT-RTX plans, built from our ONNX files and cached.

The one door to what the `engine_*` modules and `gpu` own. Needs neither torch nor the onnx package;
imports TensorRT only in `load_module`.
"""

from deploy.engine_build import MODULES, TITLES, EngineSpec, is_rtx, load_module, plan_from_onnx, title_of
from deploy.engine_cache import EngineCache, default_folder
from deploy.engine_callbacks import Progress
from deploy.engine_manifest import Engine, EngineManifest, Identity
from deploy.engine_types import check_plan
from deploy.gpu import COMPUTE_CAPABILITIES, Gpu, compute_capability, visible_gpus
from sr.errors import EngineError

__all__ = [
    "COMPUTE_CAPABILITIES",
    "MODULES",
    "TITLES",
    "Engine",
    "EngineCache",
    "EngineError",
    "EngineManifest",
    "EngineSpec",
    "Gpu",
    "Identity",
    "Progress",
    "check_plan",
    "compute_capability",
    "default_folder",
    "is_rtx",
    "load_module",
    "plan_from_onnx",
    "title_of",
    "visible_gpus",
]
