"""Settings of a run: stages, defaults, TOML files, and the options that repeat them."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sr.cli import main
from sr.errors import ModelError, SrupError, TrainingError
from sr.network.config import PRESETS, ModelConfig
from train.config import TrainConfig
from train.setting import GROUPS
from train.settings import MODEL_FIELDS, SETTINGS, config_from_settings, settings_from_toml
from train.stage import Stage

LIST = Path("pairs/train/x2.json")
OPTIONS = {
    option.name: option for option in main.commands["train"].params if isinstance(option, click.Option)
}


def refused(function: Any, *arguments: Any, error: type[SrupError] = TrainingError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        function(*arguments, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- stages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("l1:200", Stage("l1", 200)),
        ("l1+0.05*fftloss:3:frozen", Stage("l1+0.05*fftloss", 3, frozen=True)),
        ("l2:16:lr=1e-4", Stage("l2", 16, learning_rate=1e-4)),
        ("l2:16:frozen:lr=0.00012345678", Stage("l2", 16, frozen=True, learning_rate=0.00012345678)),
        ("l2:16:lr=1e-4:frozen", Stage("l2", 16, frozen=True, learning_rate=1e-4)),
        ("l1:40:batch=8:patch=32", Stage("l1", 40, batch_size=8, patch_size=32)),
        ("l2:10:lr=1e-4:patch=48:batch=64", Stage("l2", 10, 64, 48, 1e-4)),
    ],
)
def test_stage_is_read_and_written(text: str, stage: Stage) -> None:
    assert Stage.parse(text) == stage
    assert Stage.parse(str(stage)) == stage


@given(
    st.builds(
        Stage,
        st.sampled_from(["l1", "l1+0.05*fftloss"]),
        st.integers(1, 10**6),
        st.none() | st.integers(1, 10**6),
        st.none() | st.integers(1, 10**6),
        st.none() | st.floats(1e-12, 1e3),
        st.booleans(),
    )
)
def test_stage_survives_being_written(stage: Stage) -> None:
    assert Stage.parse(str(stage)) == stage


@pytest.mark.parametrize(
    "text",
    ["", "l1", "l1:", "l1:x", "l1:0", "l1:-2", "l1:1.5", "l1:2:melted", "l1:2:lr", "l1:2:lr=", "l1:2:lr=0",
     "l1:2:lr=-1e-4", "l1:2:lr=inf", "l1:2:lr=nan", "l1:2:", "l1:2:rate=1", "l1:2:batch=0", "l1:2:batch=8.5",
     "l1:2:patch=-1", "l1:2:patch=", "l1:2:batch=8:batch=9", "l1:2:frozen=1"],
)  # fmt: skip
def test_stage_that_does_not_parse(text: str) -> None:
    assert repr(text) in refused(Stage.parse, text)
    config = TrainConfig(model=ModelConfig(), train_list=LIST, stages=("l1:2", text))
    assert repr(text) in refused(config.plan)


def test_plan_without_stages_is_one_stage() -> None:
    config = TrainConfig(model=ModelConfig(), train_list=LIST, loss="l2", total_epochs=7)
    assert config.plan() == (Stage("l2", 7),)
    staged = replace(config, stages=("l1:3", "charbonnier:2:frozen"))
    assert staged.plan() == (Stage("l1", 3), Stage("charbonnier", 2, frozen=True))


def test_gates_cannot_thaw_nor_freeze_where_there_are_none() -> None:
    config = TrainConfig(model=ModelConfig(), train_list=LIST, stages=("l1:1:frozen", "l2:1"))
    assert "l2:1" in refused(config.plan)
    for attention in ("none", "local"):
        without = replace(config, model=ModelConfig(attention=attention), stages=("l1:1", "l2:1:frozen"))
        assert f"{attention!r}" in refused(without.plan)
    assert "freeze the gates in a stage" in refused(
        TrainConfig, model=ModelConfig(attention="frozen"), train_list=LIST
    )


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"total_epochs": 0}, "total_epochs is 0"),
        ({"patches_per_picture": 0}, "patches_per_picture is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"val_every": 0}, "val_every is 0"),
        ({"save_every": 0}, "save_every is 0"),
        ({"keep": 0}, "keep is 0"),
        ({"lr_halve_step": 0}, "lr_halve_step is 0"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm is nan"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"fft_cutoff": -0.1}, "fft_cutoff is -0.1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"lr_schedule": "linear"}, "lr_schedule 'linear'"),
        ({"optimizer": "adam"}, "optimizer 'adam'"),
        ({"amp": "fp8"}, "amp 'fp8'"),
    ],
    ids=str,
)
def test_impossible_settings_are_named(changes: dict[str, Any], named: str) -> None:
    assert named in refused(TrainConfig, model=ModelConfig(), train_list=LIST, **changes)


def test_dictionary_comes_back_as_json() -> None:
    config = TrainConfig(
        model=ModelConfig(scale=3, colour="Y", img_channels=1),
        train_list=Path("a/b.json"),
        val_lists=(Path("v/1.json"), Path("v/2.json")),
        stages=("l1:2", "l2:3:frozen:lr=0.001"),
        init_weights=Path("w.safetensors"),
        ema=0.99,
        amp="bf16",
    )
    text = json.dumps(config.to_dict())
    assert TrainConfig.from_dict(json.loads(text)) == config


def test_dictionary_of_another_program_is_refused() -> None:
    good = TrainConfig(model=ModelConfig(), train_list=LIST).to_dict()
    assert "depth" in refused(TrainConfig.from_dict, good | {"depth": 3})
    assert "model" in refused(TrainConfig.from_dict, {"train_list": "x"})
    assert "train_list" in refused(TrainConfig.from_dict, {"model": good["model"]})
    refused(TrainConfig.from_dict, good | {"model": {"scale": 0}}, error=ModelError)
    refused(TrainConfig.from_dict, good | {"total_epochs": "many"})


def test_lists_that_are_not_given_are_those_that_prepare_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("val/b/x3.json", "val/a/x3.json", "val/a/x2.json", "val/x3.json", "train/x3.json"):
        (tmp_path / "pairs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pairs" / name).touch()
    config = config_from_settings({"upscale_factor": 3})
    assert config.train_list == Path("pairs/train/x3.json")
    assert config.val_lists == (Path("pairs/val/a/x3.json"), Path("pairs/val/b/x3.json"))
    assert config.model == replace(PRESETS["small"], scale=3, norm="none")
    own = config_from_settings({"train_list": Path("t.json"), "val_lists": (Path("v.json"),)})
    assert (own.train_list, own.val_lists) == (Path("t.json"), (Path("v.json"),))
    assert own.model.scale == 2


def test_settings_of_the_network() -> None:
    assert config_from_settings({"preset": "tiny"}).preset == "tiny"
    changed = config_from_settings({"preset": "tiny", "num_feats": 16})
    assert changed.preset == "custom"
    assert changed.model == replace(PRESETS["tiny"], num_feats=16, norm="none")
    assert config_from_settings({"preset": "tiny", "num_feats": 32}).preset == "tiny"
    assert config_from_settings({"preset": "tiny", "norm": "weight"}).preset == "tiny"
    assert config_from_settings({"preset": "tiny", "attention": "none"}).preset == "tiny"
    assert config_from_settings({"preset": "tiny", "attention": "local"}).preset == "custom"
    assert config_from_settings({"preset": "tiny", "fusion": False}).preset == "custom"
    luma = config_from_settings({"colour": "Y"})
    assert (luma.model.colour, luma.model.img_channels, luma.preset) == ("Y", 1, "small")
    assert "'huge'" in refused(config_from_settings, {"preset": "huge"}, error=ModelError)
    assert "num_blocks" in refused(config_from_settings, {"num_blocks": 0}, error=ModelError)
    message = refused(config_from_settings, {"width": 1, "num_block": 2})
    assert "'width'" in message
    assert "'num_block'; did you mean 'num_blocks'?" in message


def test_halving_epochs_imply_the_step_schedule() -> None:
    assert config_from_settings({}).lr_schedule == "cosine"
    assert config_from_settings({"lr_halve_step": 60}).lr_schedule == "step"
    both = config_from_settings({"lr_halve_step": 60, "lr_schedule": "cosine"})
    assert both.lr_schedule == "cosine"


def test_trained_weights_get_a_lower_rate_unless_one_is_given() -> None:
    new = config_from_settings({}).learning_rate
    tuned = config_from_settings({"init_weights": Path("w.safetensors")}).learning_rate
    assert tuned < new
    given = config_from_settings({"init_weights": Path("w.safetensors"), "learning_rate": 0.5})
    assert given.learning_rate == 0.5


def test_files_of_a_run_are_named_after_prefix_and_scale() -> None:
    config = TrainConfig(
        model=ModelConfig(scale=3),
        train_list=LIST,
        checkpoint_dir=Path("c"),
        save_subdir="s",
        save_prefix="1",
    )
    assert config.file("last.pt") == Path("c/s/1_x3_last.pt")


# --- TOML ---------------------------------------------------------------------------------------


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "folder" / "run.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_toml_takes_the_names_of_options_and_fields(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        scale = 3
        num_feats = 8
        colour = "YCbCr"
        asymmetric = false
        train-list = "lists/x3.json"
        val-list = ["a.json", "/data/b.json"]
        checkpoint_dir = "../runs"
        save-subdir = "größer"
        lr = 1
        lr-halve-step = 60
        stage = ["l1:2", "l2:1:frozen"]
        optimizer = "AdamW"
        init-weights = "w.safetensors"
        compile = true
        """,
    )
    folder = path.parent
    settings = settings_from_toml(path)
    assert settings == {
        "upscale_factor": 3,
        "num_feats": 8,
        "colour": "YCbCr",
        "asymmetric": False,
        "train_list": folder / "lists/x3.json",
        "val_lists": (folder / "a.json", Path("/data/b.json")),
        "checkpoint_dir": folder / "../runs",
        "save_subdir": "größer",
        "learning_rate": 1.0,
        "lr_halve_step": 60,
        "stages": ("l1:2", "l2:1:frozen"),
        "optimizer": "AdamW",
        "init_weights": folder / "w.safetensors",
        "compile": True,
    }
    assert type(settings["learning_rate"]) is float
    config = config_from_settings(settings)
    assert config.model.scale == 3
    assert config.lr_schedule == "step"


def test_one_list_or_stage_may_stand_without_brackets(tmp_path: Path) -> None:
    path = toml(tmp_path, 'stages = "l1:2"\nval_lists = "a.json"\n')
    assert settings_from_toml(path) == {"stages": ("l1:2",), "val_lists": (path.parent / "a.json",)}


@pytest.mark.parametrize(
    "line",
    [
        'total-epochs = "300"',
        "total-epochs = 300.0",
        "total-epochs = true",
        'lr = "1e-3"',
        "lr = true",
        "compile = 1",
        "loss = 1",
        "train-list = 3",
        "val-list = [1]",
        "stage = [1]",
        "preset = 5",
        "optimizer = 5",
        "num_feats = 8.0",
        "asymmetric = 'yes'",
        "ema = [0.9]",
    ],
)
def test_toml_value_of_another_type_is_named(tmp_path: Path, line: str) -> None:
    path = toml(tmp_path, line)
    assert refused(settings_from_toml, path).startswith(f"{path}: {line.split()[0]} is ")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("total-epoch", "total-epochs"),
        ("patchsize", "patch-size"),
        ("Optimizer", "optimizer"),
        ("model", None),
        ("__class__", None),
    ],
)
def test_unknown_toml_key_is_named_with_what_it_may_mean(tmp_path: Path, key: str, meant: str | None) -> None:
    path = toml(tmp_path, f"{key} = 1")
    message = refused(settings_from_toml, path)
    assert message.startswith(f"{path}: ")
    assert repr(key) in message
    assert ("did you mean" in message) == (meant is not None)
    assert meant is None or repr(meant) in message


@pytest.mark.parametrize("key", ["scale", "upscale-factor", "upscale_factor"])
def test_scale_has_its_name_and_that_of_the_seed(tmp_path: Path, key: str) -> None:
    assert settings_from_toml(toml(tmp_path, f"{key} = 4")) == {"upscale_factor": 4}
    option = "--" + key.replace("_", "-")
    assert main.commands["train"].make_context("train", [option, "4"]).params["upscale_factor"] == 4


@pytest.mark.parametrize("content", [b"lr = ", b"[", b"\x89PNG\r\n", b"\xff\xfe", b"lr = 1\nlr = 2"])
def test_damaged_toml_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert refused(settings_from_toml, path).startswith(f"{path}: not a TOML file (")


def test_missing_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "absent.toml"
    assert refused(settings_from_toml, path).startswith(f"{path}: cannot read the settings (No such file")


# --- options ------------------------------------------------------------------------------------

# Options that name a checkpoint, and those of the command itself.
NOT_SETTINGS = {"load_subdir", "load_prefix", "load_epoch", "config_file", "resume", "processes"}


def test_every_setting_has_an_option_and_every_option_a_setting() -> None:
    assert OPTIONS.keys() - NOT_SETTINGS == SETTINGS.keys()
    assert all(option.help for option in OPTIONS.values())
    assert set(SETTINGS) - set(MODEL_FIELDS) >= {f.name for f in fields(TrainConfig)} - {"model"}


def test_defaults_that_help_shows_are_those_that_hold() -> None:
    config = config_from_settings({})
    held = asdict(config.model) | {f.name: getattr(config, f.name) for f in fields(config)}
    held |= {"upscale_factor": config.model.scale}
    checked = set()
    for name, option in OPTIONS.items():
        found = re.search(r"\[default: ([^];]*)[];]", option.help or "")
        if found and name in SETTINGS and not SETTINGS[name].setting.said:
            value = held[name]
            said: Any = {"yes": True, "no": False}[found[1]] if isinstance(value, bool) else found[1]
            assert type(value)(said) == value, name
            checked.add(name)
    assert len(checked) > 20


def test_help_lists_options_under_headings() -> None:
    text = CliRunner().invoke(main, ["train", "--help"]).output
    headings = re.findall(r"^([A-Z].*):$", text, flags=re.M)
    assert headings == ["Options", *GROUPS, "Other options", "Examples"]
    shown = set(re.findall(r"^  (--[a-z-]+)", text, flags=re.M)) - {"--help"}
    assert shown == {option.opts[0] for option in OPTIONS.values()}
    network = text[text.index("Network:") : text.index("Data:")]
    assert "--num-blocks" in network
    assert "--train-list" not in network


def test_help_of_training_needs_no_torch() -> None:
    code = (
        "import sys\nfrom sr.cli import main\ntry:\n    main(['train', '--help'])\nexcept SystemExit:\n"
        "    assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()\n    print('light')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("light\n")


def test_options_that_are_not_given_are_told_from_those_that_are() -> None:
    context = main.commands["train"].make_context("train", [])
    given = {name for name, value in context.params.items() if value not in (None, ())}
    assert given == {"resume"}
    assert context.params["resume"] is False


@pytest.mark.parametrize("option", ["--optimizer", "--lr-schedule", "--amp", "--colour", "--attention"])
def test_choices_are_those_of_the_settings(option: str) -> None:
    parameter = OPTIONS[option.removeprefix("--").replace("-", "_")]
    assert isinstance(parameter.type, click.Choice)
    for choice in parameter.type.choices:
        config = config_from_settings({str(parameter.name): choice})
        assert choice in (getattr(config, str(parameter.name), None), *asdict(config.model).values())


def test_alone_amp_is_bf16_and_ema_has_a_usual_decay() -> None:
    context = main.commands["train"].make_context("train", ["--amp", "--ema", "--lr", "1e-3"])
    assert context.params["amp"] == "bf16"
    assert context.params["ema"] == 0.999
    own = main.commands["train"].make_context("train", ["--amp", "fp16", "--ema=0.9"])
    assert (own.params["amp"], own.params["ema"]) == ("fp16", 0.9)


def test_a_full_command_line_parses() -> None:
    words = (
        "--upscale-factor=2 --optimizer=Adam --lr=1e-3 --lr-halve-step=60 --total-epochs=300 --batch-size=16 "
        "--loss=fftloss --checkpoint-dir=checkpoints --save-subdir=test --save-prefix=1"
    )
    context = main.commands["train"].make_context("train", words.split())
    given = {n: v for n, v in context.params.items() if v not in (None, (), False)}
    config = config_from_settings(given)
    assert config.lr_schedule == "step"
    assert (config.optimizer, config.learning_rate, config.lr_halve_step) == ("Adam", 1e-3, 60)
    assert (config.total_epochs, config.batch_size, config.loss) == (300, 16, "fftloss")
    assert config.file("last.pt") == Path("checkpoints/test/1_x2_last.pt")
