"""Evaluation: the figures of record, of functions and of every kind of model file."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from deploy.export import ExportSpec, export_onnx
from sr.cli import main
from sr.errors import DataError
from sr.image.content import NOT_A_PICTURE
from sr.metrics import psnr, psnr_y, ssim, ssim_y
from sr.network.checkpoint import TRAINING_FORMAT
from sr.network.model import SRNet
from tests.training import CPU, NETWORK, small_config, trained, write_pairs
from train.data.pairs import load_pair_list, read_opaque
from train.evaluate import Quality, evaluate, evaluate_folder, upscale_with
from train.prepare.make import PrepareSpec, prepare

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = NDArray[np.uint8]


def enlarged(lr: Pixels) -> Pixels:
    return lr.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "x2.json", scale=2, pictures=3, side=20)


def test_figures_are_means_over_the_pictures(pairs: Path) -> None:
    rows = []
    for pair in load_pair_list(pairs):
        hr, sr = read_opaque(pair.hr), enlarged(read_opaque(pair.lr))
        inner = [image[2:-2, 2:-2] for image in (sr, hr)]
        channels = [ssim(inner[0][..., c], inner[1][..., c]) for c in range(3)]
        rows.append((psnr_y(sr, hr, scale=2), psnr(*inner), ssim_y(sr, hr, scale=2), sum(channels) / 3))
    luma, rgb, ssim_luma, ssim_rgb = np.mean(rows, axis=0)
    quality = evaluate(enlarged, pairs, scale=2)
    assert quality == Quality(*map(pytest.approx, (luma, rgb, ssim_luma, ssim_rgb)), pictures=3)
    assert quality.ssim_rgb != quality.ssim_y
    assert str(quality) == f"{luma:.3f} dB {ssim_luma:.4f}"


def test_pictures_of_another_size_are_named(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "x2.json", scale=2)
    Image.new("RGB", (24, 22)).save(tmp_path / "hr1-x2.png")
    with pytest.raises(DataError) as caught:
        evaluate(enlarged, path, scale=2)
    assert str(caught.value).startswith(f"{tmp_path / 'hr1-x2.png'}: is 24x22, need 24x24")


def test_picture_that_is_too_small_to_measure_is_named(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "x2.json", scale=2, side=6)
    with pytest.raises(DataError, match=r"hr0-x2\.png: "):
        evaluate(enlarged, path, scale=2)


def test_folder_of_hr_pictures_is_measured_as_its_pairs_are(tmp_path: Path) -> None:
    for seed, sides in enumerate(((41, 50), (40, 44))):
        image = np.random.default_rng(seed).integers(0, 256, (*sides, 3), dtype=np.uint8)
        (tmp_path / "hr").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"hr/{seed}.png")
    spec = PrepareSpec(tmp_path / "hr", scales=(2,), output=tmp_path / "pairs", whole=True)
    expected = evaluate(enlarged, prepare(spec).lists[0].path, scale=2)
    (tmp_path / "hr/notes.txt").write_text("no picture")
    measured = evaluate_folder(enlarged, tmp_path / "hr", scale=2)
    assert (measured.means, measured.problems, measured.left_out) == (expected, [], {NOT_A_PICTURE: 1})

    (tmp_path / "hr/bad.png").write_text("no picture")
    measured = evaluate_folder(enlarged, tmp_path / "hr", scale=2)
    quality, (problem,) = measured.means, measured.problems
    assert quality == expected
    assert problem.startswith(str(tmp_path / "hr/bad.png"))
    result = CliRunner().invoke(main, ["eval", str(tmp_path / "hr"), "--scale", "2", "--backend", "onnx"])
    assert result.exit_code == 1
    assert result.stdout.startswith("2 pictures")
    assert "bad.png" in result.stderr
    for arguments in ([], [str(tmp_path / "hr"), "--list", "x2.json"]):
        assert CliRunner().invoke(main, ["eval", *arguments]).exit_code == 2


def test_measuring_and_preparing_need_no_torch() -> None:
    code = "import sys, train.evaluate, train.prepare.make; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_network_is_left_in_the_mode_it_was_in() -> None:
    model = SRNet(NETWORK).train()
    gates = model.state_dict()["blocks.0.attention.gate_mean"].clone()
    sr = upscale_with(model)(np.zeros((5, 7, 3), np.uint8))
    assert sr.shape == (10, 14, 3)
    assert sr.dtype == np.uint8
    assert model.training
    assert torch.equal(model.state_dict()["blocks.0.attention.gate_mean"], gates)
    model.eval()
    upscale_with(model)(np.zeros((5, 7, 3), np.uint8))
    assert not model.training


@pytest.mark.slow
def test_every_kind_of_model_file_gives_the_same_figures(pairs: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    config = small_config(
        pairs, tmp_path, stages=("l1:3", "l1:1:frozen"), val_lists=(pairs,), ema=0.5, save_every=1
    )
    trainer = trained(config)
    quality = evaluate(upscale_with(trainer.shipped_model), pairs, scale=2, group=CPU)
    onnx = export_onnx(config.file("last.safetensors"), tmp_path, ExportSpec())
    files = [config.file("last.pt"), config.file("e0004.pt"), config.file("last.safetensors"), onnx]
    for path in files:
        result = CliRunner().invoke(
            main, ["eval", "--model", str(path), "--list", str(pairs), "--device", "cpu"]
        )
        assert result.exit_code == 0, result.output
        figures = r"3 pictures  PSNR Y ([0-9.]+) dB  RGB ([0-9.]+) dB  SSIM Y ([0-9.]+)  RGB ([0-9.]+)\n"
        found = re.fullmatch(figures, result.output)
        assert found, result.output
        assert float(found[1]) == pytest.approx(quality.psnr_y, abs=0.01)
        assert float(found[2]) == pytest.approx(quality.psnr_rgb, abs=0.01)
        assert float(found[3]) == pytest.approx(quality.ssim_y, abs=1e-3)
        assert float(found[4]) == pytest.approx(quality.ssim_rgb, abs=1e-3)
    live = CliRunner().invoke(main, ["info", "--model", str(files[0])])
    assert live.exit_code == 0, live.output
    assert "frozen" in live.output


def test_checkpoint_does_not_go_to_onnx_runtime(pairs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"format": TRAINING_FORMAT}, path)
    result = CliRunner().invoke(
        main, ["eval", "--model", str(path), "--list", str(pairs), "--backend", "onnx"]
    )
    assert result.exit_code == 1
    assert "backend onnx" in result.output
