"""The front of the quality-speed plane and the gap to it, on points with known answers."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("torch")

from benchmarks import plane, quality
from benchmarks.lib.front import BICUBIC, GREY_AS_LUMA_DB, Point, front, gap
from benchmarks.lib.paths import ROOT
from benchmarks.plane import measure_plane, stored_psnr
from sr.errors import DataError


def point(name: str, ms: float, db: float | None, *, ours: bool = False) -> Point:
    return Point(name, ms, db, db, ours=ours)


PEERS = [
    point("fast", 10, 30.0),
    point("beaten", 20, 29.0),
    point("middle", 100, 32.0),
    point("unknown", 5, None),
    point("slow", 1000, 33.0),
    point("same quality, slower", 2000, 33.0),
]


def test_no_point_beats_a_point_of_the_front_in_both() -> None:
    assert [p.name for p in front(PEERS)] == ["fast", "middle", "slow"]


def test_the_better_of_two_equally_fast_points_is_on_the_front() -> None:
    assert [p.name for p in front([point("a", 1, 30), point("b", 1, 31)])] == ["b"]


@pytest.mark.parametrize(
    ("ms", "db", "interpolated", "behind", "best", "on_front"),
    [
        (10 ** (2 + 0.5), 32.5, 0.0, 0.5, "middle", True),  # half way in the logarithm of time
        (10 ** (1 + 0.25), 30.0, -0.5, 0.0, "fast", False),
        (100, 32.4, 0.4, 0.4, "middle", True),
        (5000, 32.0, -1.0, -1.0, "slow", False),  # the front stays level
    ],
)
def test_gap_at_equal_time(
    ms: float, db: float, interpolated: float, behind: float, best: str, on_front: bool
) -> None:
    found = gap(point("ours", ms, db, ours=True), PEERS)
    assert found.interpolated_db == pytest.approx(interpolated, abs=1e-3)
    assert found.best_no_slower_db == pytest.approx(behind, abs=1e-3)
    assert (found.best_no_slower, found.on_front) == (best, on_front)
    assert found.interpolated_db_grey_as_luma == pytest.approx(interpolated - GREY_AS_LUMA_DB, abs=1e-3)


def test_faster_than_all_has_no_gap() -> None:
    found = gap(point("ours", 1, 25.0, ours=True), PEERS)
    assert found.interpolated_db is None
    assert found.on_front


@pytest.mark.slow
def test_a_plane_is_measured_and_drawn(tmp_path: Path) -> None:
    """Small and one round: the test checks completeness, not speed."""
    ours = {BICUBIC: {"Set5": 30.4, "Set14": 27.6}, "small": {"Set5": 33.3, "Set14": 29.6}}
    found = measure_plane(3, ours, rounds=1, height=16, width=24, peers=("ECBSR-M10C32",))
    by_name = {entry["name"]: entry for entry in found["points"]}
    assert {BICUBIC, "srup small", "ECBSR-M10C32"} <= by_name.keys()
    assert all(entry["ms_per_megapixel"] > 0 for entry in found["points"])
    assert by_name["srup small"]["ours"]
    assert by_name["srup small"]["macs_per_output_px"] == pytest.approx(132_025 / 9, rel=0.002)
    assert plane._named("FSRCNN", 3, ours).set14 == 29.43
    assert found["no_figure"] == ["ECBSR-M10C32"], "published at x2 and x4 only"
    assert "srup small" in {entry["name"] for entry in found["gaps"]}
    again = json.loads(json.dumps(found, allow_nan=False))
    assert list(plane.lines({"planes": [again]}))
    plane.draw([again, again], tmp_path / "plane.svg")
    drawn = ET.parse(tmp_path / "plane.svg").getroot()
    assert drawn.tag.endswith("svg")
    ids = [element.get("id", "") for element in drawn.iter()]
    assert {"axes_1", "axes_2"} <= set(ids)


def test_stored_quality_counts_only_for_the_weights_that_ship(tmp_path: Path) -> None:
    presets = plane._trained(3)
    rows = [
        {
            "set": "Set14",
            "scale": 3,
            "method": f"srup {preset} fp32",
            "preset": preset,
            "precision": "fp32",
            "weights": plane.weights_digest(preset, 3),
            "psnr_y": 29.0,
        }
        for preset in presets
    ] + [{"set": "Set14", "scale": 3, "method": BICUBIC, "psnr_y": 27.0}]
    path = tmp_path / "quality-machine-2026-01-01.json"
    path.write_text(json.dumps({"rows": rows}))
    assert stored_psnr(3, tmp_path) == {BICUBIC: {"Set14": 27.0}} | {p: {"Set14": 29.0} for p in presets}
    rows[0]["weights"] = "others"
    path.write_text(json.dumps({"rows": rows}))
    with pytest.raises(DataError, match=r"x3 .*python -m benchmarks\.quality"):
        stored_psnr(3, tmp_path)


def test_quality_of_a_set_has_ours_bicubic_and_their_cost(tmp_path: Path) -> None:
    with Image.open(ROOT / "examples" / "kitten.png") as picture:
        picture.convert("RGB").crop((130, 110, 226, 182)).save(tmp_path / "a.png")
    rows = [row for row in quality.measure("tiny", tmp_path) if row["scale"] == 3]
    by_method = {row["method"]: row for row in rows}
    assert by_method["srup small fp32"]["psnr_y"] > by_method[BICUBIC]["psnr_y"]
    assert by_method["srup small fp32"]["macs_720p_g"] == pytest.approx(13.52, abs=0.05)
    assert by_method["srup small fp32"]["s_per_megapixel"] > 0
    assert quality.psnr_of(rows)[3].keys() >= {BICUBIC, "small"}


def test_every_peer_is_listed_with_its_source() -> None:
    rows = quality.published_rows()
    assert len(rows) == 7 * 3
    assert all(row["source"] for row in rows)
