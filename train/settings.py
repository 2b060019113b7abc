"""Flat settings of a run, as on the command line or in a TOML file, and the configuration made from them.

Owns the settings of the network, which are no fields of `TrainConfig`, and what follows from settings
that are not given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from sr.errors import TrainingError
from sr.network.config import PRESETS, AsymWidth, Colour, ModelConfig, Norm, preset_config, preset_name
from train.config import DECLARED, Declared, TrainConfig
from train.setting import NETWORK, Setting, suggestion

Value = bool | int | float | str | Path | tuple[str, ...] | tuple[Path, ...]
Settings = Mapping[str, Value]  # by the names in `SETTINGS`; what is not given is absent

# Where `srup prepare` puts its lists.
TRAIN_LIST, VAL_LISTS = "pairs/train/x{scale}.json", "pairs/val/*/x{scale}.json"

# Weights that were trained are shaken by the rate that suits new ones: at 3e-3 the loss of the shipped
# network rose by 8 % and had not come down after 1,200 steps.
_RATE_FROM_WEIGHTS = 1e-3

_SMALL = PRESETS["small"]
_OF_PRESET = "that of the preset"


def _network(name: str, hint: Any, default: Any, help: str, **details: Any) -> Declared:
    return Declared(name, hint, default, Setting(help, NETWORK, **details))


_NETWORK = (
    _network("upscale_factor", int, 2, "Scale of the network.", option=("--scale", "--upscale-factor")),
    _network("preset", str, "small", f"Size of the network: {', '.join(PRESETS)}."),
    _network("num_feats", int, _SMALL.num_feats, "Nominal width.", said=_OF_PRESET),
    _network(
        "wa_rate",
        float,
        _SMALL.wa_rate,
        "Wide activation: num-feats / wa-rate channels between blocks, num-feats * wa-rate inside.",
        said=_OF_PRESET,
    ),
    _network("num_blocks", int, _SMALL.num_blocks, "Residual blocks.", said=_OF_PRESET),
    _network(
        "attention",
        Literal["dynamic", "local", "none"],
        _SMALL.attention,
        "Gates: channel attention (dynamic), one gate for each pixel and channel (local), or none.",
    ),
    _network("norm", Norm, "none", "Normalization; folded away on export."),
    _network(
        "asymmetric",
        bool,
        _SMALL.asymmetric,
        "1x5 and 5x1 convolutions, or one 3x3.",
        said="asymmetric",
        off="--square",
    ),
    _network(
        "asym_width",
        AsymWidth,
        _SMALL.asym_width,
        "Channels between the 1x5 and the 5x1.",
        said=_OF_PRESET,
    ),
    _network(
        "fusion",
        bool,
        _SMALL.fusion,
        "Join the outputs of all blocks before the upsampler, or take the last one alone.",
        said=_OF_PRESET,
        off="--last-block",
    ),
    _network("residual_scale", float, _SMALL.residual_scale, "Factor on residual branches."),
    _network("colour", Colour, _SMALL.colour, "What the network sees; the exported file always takes RGB."),
)

# All settings by field name.
SETTINGS: dict[str, Declared] = {one.name: one for one in _NETWORK} | DECLARED
# Fields of `ModelConfig` that a run may set beside its preset.
MODEL_FIELDS = tuple(f.name for f in fields(ModelConfig) if f.name in SETTINGS)
_KEYS = {option.removeprefix("--"): one for one in SETTINGS.values() for option in one.options} | {
    name.replace("_", "-"): one for name, one in SETTINGS.items()
}


def config_from_settings(settings: Mapping[str, Any]) -> TrainConfig:
    """Make a configuration from flat settings, named as in `SETTINGS`.

    Lists that are not given are those that `srup prepare` makes.

    Raises:
        TrainingError: a setting is unknown or impossible.
        ModelError: the network is impossible.
    """
    if unknown := sorted(settings.keys() - SETTINGS.keys()):
        raise TrainingError("; ".join(f"unknown setting {n!r}{suggestion(n, SETTINGS)}" for n in unknown))
    given = {
        name: settings.get(name, SETTINGS[name].default) for name in ("preset", "norm", "upscale_factor")
    }
    scale = given["upscale_factor"]
    changes = {name: settings[name] for name in MODEL_FIELDS if name in settings}
    model = preset_config(given["preset"], **({"scale": scale, "norm": given["norm"]} | changes))
    values = {name: value for name, value in settings.items() if name in DECLARED}
    if "lr_halve_step" in values:
        values.setdefault("lr_schedule", "step")
    if values.get("init_weights"):
        values.setdefault("learning_rate", _RATE_FROM_WEIGHTS)
    if values.get("degrade"):  # what a file says may change; what the run does may not
        from train.data.degrade import degradation_from

        described = degradation_from(values["degrade"])
        values["degrade"] = (described.to_json(),) if described else ()
    if not values.get("train_list"):
        values["train_list"] = Path(TRAIN_LIST.format(scale=scale))
    if not values.get("val_lists"):
        values["val_lists"] = tuple(sorted(Path().glob(VAL_LISTS.format(scale=scale))))
    return TrainConfig(model=model, preset=preset_name(model), **values)


def settings_from_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file: the names of the options, with _ or -, e.g. `total-epochs = 300`.

    Relative paths are relative to the folder of the TOML file. Types are checked.

    Raises:
        TrainingError: the file cannot be read, or a setting is unknown or of another type.
    """
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: cannot read the settings ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not a TOML file ({error})") from error
    settings = {}
    for key, value in content.items():
        declared = _KEYS.get(key.replace("_", "-"))
        if declared is None:
            raise TrainingError(f"{path}: unknown setting {key!r}{suggestion(key.replace('_', '-'), _KEYS)}")
        settings[declared.name] = _typed(value, declared, where=f"{path}: {key}", folder=path.parent)
    return settings


_WORDS = {Path: "a path", str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _typed(value: Any, declared: Declared, *, where: str, folder: Path) -> Any:
    if declared.name == "degrade":
        value = [_degradation_word(item, folder) for item in (value if isinstance(value, list) else [value])]
    if declared.several:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed_item(item, declared.kind, where=where, folder=folder) for item in items)
    return _typed_item(value, declared.kind, where=where, folder=folder)


def _degradation_word(item: Any, folder: Path) -> Any:
    """Return a table as JSON, and the path of a file from its folder."""
    if isinstance(item, dict):
        return json.dumps(item)
    return str(folder / item) if isinstance(item, str) and item.endswith(".toml") else item


def _typed_item(value: Any, kind: type, *, where: str, folder: Path) -> Any:
    if kind is Path and isinstance(value, str):
        return folder / value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TrainingError(f"{where} is {value!r}, need {_WORDS[kind]}")
    return value
