"""`srup train` on the command line: options, TOML, starting from checkpoints, exit statuses."""

import os
import select
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from sr.cli import main
from sr.network.checkpoint import load_weights
from sr.network.model import trunk_state
from tests.training import TINY_RUN, assert_same, train_command, write_pairs
from train.report import StepReport
from train.settings import config_from_settings
from train.state import load_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the lists that `srup prepare` makes; no GPU is visible."""
    for scale in (2, 3):
        write_pairs(tmp_path / f"pairs/train/x{scale}.json", scale=scale)
        write_pairs(tmp_path / f"pairs/val/a/x{scale}.json", scale=scale)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return tmp_path


def srup_train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def trains(*arguments: object) -> str:
    result = srup_train(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object, status: int = 1) -> str:
    """Return the one line with which a command is refused."""
    result = srup_train(*arguments)
    assert result.exit_code == status, result.output
    (line,) = (line for line in result.output.splitlines() if line.startswith("Error: "))
    if status == 1:
        assert result.output.count("\n") == 1
    return line.removeprefix("Error: ")


def test_a_full_command_line_runs(cwd: Path) -> None:
    small = ["--num-feats=8", "--num-blocks=1", "--patch-size=8", "--patches-per-picture=2"]
    words = (
        "--upscale-factor=2 --optimizer=Adam --lr=1e-3 --lr-halve-step=60 --total-epochs=1 --batch-size=16 "
        "--loss=fftloss --checkpoint-dir=checkpoints --save-subdir=test --save-prefix=1"
    )
    output = trains(*words.split(), *small)
    assert "epoch 1/1  fftloss " in output
    assert "validation pairs/val/a/x2.json" in output
    names = {path.name for path in (cwd / "checkpoints/test").iterdir() if path.is_file()}
    assert names >= {
        f"1_x2_{what}" for what in ("last.pt", "e0001.pt", "last.safetensors", "best.safetensors")
    }
    config = load_config(cwd / "checkpoints/test/1_x2_last.pt")
    assert (config.lr_schedule, config.lr_halve_step, config.loss) == ("step", 60, "fftloss")
    assert config.val_lists == (Path("pairs/val/a/x2.json"),)
    assert load_weights(cwd / "checkpoints/test/1_x2_best.safetensors").config.scale == 2


def test_amp_and_ema_without_a_value(cwd: Path) -> None:
    trains(*TINY_RUN, "--amp", "--ema", "--colour", "YCbCr", "--attention", "local")
    config = load_config(cwd / "checkpoints/srup_x2_last.pt")
    assert (config.amp, config.ema, config.model.colour) == ("bf16", 0.999, "YCbCr")
    assert config.model.attention == "local"


def test_options_go_before_the_file(cwd: Path) -> None:
    (cwd / "settings").mkdir()
    (cwd / "settings/run.toml").write_text(
        "upscale-factor = 3\nnum-feats = 8\nnum-blocks = 1\npatch-size = 8\nlr = 5e-3\nema = 0.5\n"
        "patches-per-picture = 2\ntotal-epochs = 9\n"
        'checkpoint-dir = "../runs"\ntrain-list = "../pairs/train/x3.json"\n'
    )
    trains("--config", "settings/run.toml", "--total-epochs", 1, "--lr", "1e-3")
    config = load_config(cwd / "runs/srup_x3_last.pt")
    assert (config.total_epochs, config.learning_rate, config.ema) == (1, 1e-3, 0.5)
    trains("--config", "settings/run.toml", "--total-epochs", 2, "--lr", "1e-3", "--resume")
    refusal = refused("--config", "settings/run.toml", "--resume")
    assert "learning_rate was 0.001, is 0.005" in refusal


# --- starting from a checkpoint -----------------------------------------------------------------


@pytest.fixture
def first(cwd: Path) -> Path:
    """Train two epochs of x2 under checkpoints/first; return the folder."""
    trains(*TINY_RUN, "--total-epochs", 2, "--save-every", 1, "--save-subdir", "first", "--save-prefix", "p")
    return cwd / "checkpoints/first"


def started_from(cwd: Path, *arguments: object) -> Path | None:
    """Start a run that hardly moves, under checkpoints/second; return the checkpoint it starts from."""
    trains(*TINY_RUN, "--save-subdir", "second", "--lr", "1e-9", "--warmup-steps", 0, *arguments)
    newest = max((cwd / "checkpoints/second").glob("*_last.pt"), key=lambda path: path.stat().st_mtime_ns)
    return load_config(newest).init_weights


@pytest.mark.slow
def test_last_checkpoint_or_that_of_an_epoch_is_loaded_whole(cwd: Path, first: Path) -> None:
    load = ("--load-subdir", "first", "--load-prefix", "p")
    assert started_from(cwd, *load) == Path("checkpoints/first/p_x2_last.pt")
    second = load_weights(cwd / "checkpoints/second/srup_x2_last.safetensors")
    for name, value in load_weights(first / "p_x2_last.pt").state.items():
        if "gate_mean" not in name:  # these follow the gates, not the learning rate
            torch.testing.assert_close(second.state[name], value, atol=1e-6, rtol=0)
    assert second.training["started_from"]["steps"] == 8

    third = started_from(cwd, *load, "--load-epoch", 1, "--save-prefix", "third")
    assert third == Path("checkpoints/first/p_x2_e0001.pt")


@pytest.mark.slow
def test_checkpoint_of_another_scale_gives_its_trunk(cwd: Path, first: Path) -> None:
    load = ("--load-subdir", "first", "--load-prefix", "p", "--upscale-factor", 3)
    assert started_from(cwd, *load, "--load-epoch", 2) == Path("checkpoints/first/p_x2_e0002.pt")
    second = load_weights(cwd / "checkpoints/second/srup_x3_last.safetensors")
    assert second.training["started_from"]["scale"] == 2
    trunk = trunk_state(load_weights(first / "p_x2_e0002.pt").state)
    for name, value in trunk.items():
        if "gate_mean" not in name:
            torch.testing.assert_close(second.state[name], value, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_folder_and_prefix_are_by_default_those_to_save_in(cwd: Path, first: Path) -> None:
    message = refused(*TINY_RUN, "--save-subdir", "first", "--save-prefix", "p", "--load-epoch", 1)
    assert "--resume" in message
    message = refused(*TINY_RUN, "--save-subdir", "first", "--save-prefix", "q", "--load-epoch", 1)
    assert message.startswith("checkpoints/first/q_x2_e0001.pt: ")
    trains(*TINY_RUN, "--save-subdir", "first", "--save-prefix", "q", "--load-prefix", "p")
    assert load_config(first / "q_x2_last.pt").init_weights == Path("checkpoints/first/p_x2_last.pt")


def test_missing_checkpoint_is_named(cwd: Path, first: Path) -> None:
    load = ("--load-subdir", "first", "--load-prefix", "p", "--load-epoch")
    assert refused(*TINY_RUN, *load, 7).startswith("checkpoints/first/p_x2_e0007.pt: ")
    # p_x2_q_x3_... is of the prefix p_x2_q, not of p
    (first / "p_x2_q_x3_e0007.pt").touch()
    assert refused(*TINY_RUN, *load, 7).startswith("checkpoints/first/p_x2_e0007.pt: ")
    both = refused(*TINY_RUN, *load, 1, "--init-weights", "a.safetensors")
    assert "--init-weights" in both
    assert "--load-" in both


# --- exit statuses ------------------------------------------------------------------------------


def test_what_is_wrong_with_the_command_line_is_status_2(cwd: Path) -> None:
    for words in (["--optimizer", "Lion"], ["--lr", "fast"], ["--no-such-option"], ["--scale", "two"],
                  ["--processes", "0"], ["--amp=fp8"], ["extra"]):  # fmt: skip
        refused(*words, status=2)
    assert not (cwd / "checkpoints").exists()


def test_what_cannot_work_is_status_1(cwd: Path) -> None:
    assert "'l3'" in refused(*TINY_RUN, "--loss", "l3")
    assert "batch_size is 0" in refused(*TINY_RUN, "--batch-size", 0)
    assert "'huge'" in refused("--preset", "huge")
    assert "scale is 0" in refused("--scale", "0")
    assert "l1:2:x" in refused(*TINY_RUN, "--stage", "l1:2:x")
    assert refused("--resume").startswith("checkpoints/srup_x2_last.pt: ")
    assert refused("--config", "absent.toml").startswith("absent.toml: ")
    absent = refused(*TINY_RUN, "--upscale-factor", 4)
    assert absent.startswith("pairs/train/x4.json: ")
    assert "srup prepare" in absent
    assert "--scale 4" in absent
    named = refused(*TINY_RUN, "--train-list", "absent.json")
    assert named.startswith("absent.json: ")
    assert not (cwd / "checkpoints").exists()


def test_folder_that_cannot_be_made_is_named(cwd: Path) -> None:
    (cwd / "checkpoints").write_text("a file is in the way")
    assert refused(*TINY_RUN).startswith("checkpoints")


@pytest.mark.slow
def test_python_m_train_is_the_same_command(cwd: Path) -> None:
    result = train_command([*TINY_RUN, "--total-epochs", "1"], cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/1" in result.stdout
    assert result.stderr == ""
    again = train_command(TINY_RUN, cwd=cwd)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: checkpoints/srup_x2_last.pt: ")
    trains(*TINY_RUN, "--save-subdir", "in-process")
    states = [
        load_weights(cwd / "checkpoints" / name / "srup_x2_last.safetensors").state
        for name in ("", "in-process")
    ]
    for name, value in states[0].items():  # the number of threads may change a sum's rounding
        torch.testing.assert_close(value, states[1][name], atol=1e-4, rtol=1e-4)


def test_settings_that_are_not_given_are_the_defaults(cwd: Path) -> None:
    trains("--num-feats", 8, "--num-blocks", 1, "--total-epochs", 1, "--patch-size", 8)
    config = load_config(cwd / "checkpoints/srup_x2_last.pt")
    assert config == config_from_settings(
        {"num_feats": 8, "num_blocks": 1, "total_epochs": 1, "patch_size": 8}
    )


def test_same_command_gives_the_same_weights(cwd: Path) -> None:
    for name in ("one", "two"):
        trains(*TINY_RUN, "--save-subdir", name)
    first, second = (
        load_weights(cwd / "checkpoints" / name / "srup_x2_last.safetensors").state for name in ("one", "two")
    )
    assert_same(first, second)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_progress_bar_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sr.cli.progress import training_progress

    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with training_progress() as progress:
            progress(StepReport(2, 9, 40, 90, 0.0123, 160.0, 3725.0))
            progress(StepReport(2, 9, 90, 90, 0.0111, 160.0, 3700.0))
        terminal.flush()
        seen = b""
        while b"90/90" not in seen and select.select([ours], [], [], 60)[0]:
            seen += os.read(ours, 10_000)  # as much as is there
    os.close(ours)
    for fact in (b"epoch 2/9", b"90/90", b"0.0111", b"160 images/s"):
        assert fact in seen
