"""The bound of the pipeline, and the measurement of real folders."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import pipeline
from benchmarks.lib.pictures import photographs
from benchmarks.lib.timing import Spent
from benchmarks.pipeline import PipelineSpec, summary
from sr.errors import DataError, ImageError
from sr.jobs.pipeline import FileResult

SMALL = PipelineSpec(count=3, long_side=40, rounds=2, backend="onnx", device="cpu")


def took(decode: Spent, infer: Spent, encode: Spent, whole: Spent) -> dict[str, Spent]:
    return {"decode": decode, "infer": infer, "encode": encode, "end to end": whole}


def test_the_slowest_stage_bounds_where_cores_are_idle():
    one = took(Spent(1, 1), Spent(4, 4), Spent(6, 6), Spent(8, 11))
    found = summary([one], cores=16)
    assert found["bottleneck"] == "encode"
    assert found["bound_by"] == "encode alone"
    assert found["bound_seconds"] == 6
    assert found["share_of_bound"] == 0.75


def test_the_cores_bound_where_every_stage_wants_them():
    one = took(Spent(1, 1), Spent(4, 8), Spent(3, 3), Spent(8, 12))
    found = summary([one], cores=2)
    assert found["bottleneck"] == "infer"
    assert found["bound_by"] == "2 cores"
    assert found["bound_seconds"] == 6
    assert found["share_of_bound"] == 0.75


def test_bound_and_share_are_of_the_same_round():
    """A machine that is twice as slow in one round changes neither."""
    one = took(Spent(1, 1), Spent(4, 4), Spent(2, 2), Spent(5, 7))
    slow = {name: Spent(2 * value.wall, 2 * value.cores) for name, value in one.items()}
    assert summary([one, slow, slow], cores=8)["share_of_bound_by_round"] == [0.8, 0.8, 0.8]


@pytest.mark.parametrize("suffix", pipeline.FORMATS)
def test_every_format_is_measured(suffix):
    result = pipeline.run(formats=[suffix], spec=SMALL)
    assert result["count"] == 3
    (row,) = result["rows"]
    assert row["format"] == suffix
    assert row["seconds"].keys() == row["core_seconds"].keys() == {*pipeline.STAGES, "end to end"}
    assert all(value > 0 for value in row["seconds"].values())
    assert len(row["share_of_bound_by_round"]) == 2
    assert row["megabytes_out"] > 0
    json.dumps(result, allow_nan=False)


def test_photographs_are_spread_over_the_folder_turned_and_reduced(tmp_path):
    (tmp_path / "sub").mkdir()
    for index in range(7):
        orientation = Image.Exif()
        orientation[0x0112] = 6
        picture = Image.new("RGB", (60, 30), (index * 30, 0, 0))
        picture.save(tmp_path / "sub" / f"{index}.png", exif=orientation)
    (tmp_path / "notes.txt").write_text("not a picture")
    pictures = photographs(tmp_path, count=3, long_side=40)
    assert [picture.getpixel((0, 0))[0] // 30 for picture in pictures] == [0, 2, 4]
    assert {picture.size for picture in pictures} == {(20, 40)}


def test_folders_without_pictures_and_damaged_ones_are_refused(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: ")):
        pipeline.run(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png: "):
        pipeline.run(tmp_path)


def test_a_picture_that_fails_ends_the_measurement(monkeypatch):
    def failing(jobs, upscaler, **options):
        for job in jobs:
            yield FileResult(job, error=ImageError("disk full"))

    monkeypatch.setattr(pipeline, "upscale_files", failing)
    with pytest.raises(ImageError, match="disk full"):
        pipeline.run(formats=["png"], spec=SMALL)


def test_the_command_prints_bottleneck_and_share(tmp_path):
    Image.new("RGB", (30, 20), "teal").save(tmp_path / "a.jpg")
    arguments = [str(tmp_path), "--format", "jpg", "--rounds", "1", "--backend", "onnx", "--device", "cpu"]
    result = CliRunner().invoke(pipeline.main, arguments)
    assert result.exit_code == 0, result.output
    assert "bottleneck" in result.stdout
    assert str(Path(tmp_path).parent) not in result.stdout
