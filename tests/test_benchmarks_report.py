"""The report: results and gaps on the page, changed figures, and its look in a browser."""

import importlib.util
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from click.testing import CliRunner, Result

pytest.importorskip("matplotlib")
pytest.importorskip("onnx")

from benchmarks.lib.paths import RESULTS
from benchmarks.report import command
from benchmarks.report import crops as report_crops
from benchmarks.report.blocks import as_it_is, number, percent
from benchmarks.report.changes import Change, changes
from benchmarks.report.crops import Crop, Shown
from benchmarks.report.headlines import HEADLINES
from benchmarks.report.page import page
from benchmarks.report.renderers import RENDERERS
from benchmarks.report.sections import NAMES, SECTIONS, Inputs, Section, measured, no_settings
from benchmarks.report.stored import read_results
from sr.errors import DataError

NASTY = """<script>alert(1)</script> & "quoted" 'single' {{ 1 }}"""
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="

PARITY = {
    "reference": "PyTorch",
    "pictures": ["kitten"],
    "min_psnr_db": {"fp32": 80.0},
    "max_loss_db": {"fp32": 0.001},
    "rows": [
        {
            "scale": 2,
            "backend": "onnx",
            "device": "cpu",
            "precision": "fp32",
            "tiling": tiling,
            "psnr_db": psnr,
            "max_levels": 1,
            "share": 0.0000102,
            "worst": "kitten",
            "passed": passed,
        }
        for tiling, psnr, passed in (("whole", None, True), ("tiled", 71.5, False))
    ],
    "sets": [{"set": "Set5 x2", "scale": 2, "case": "reference", "psnr_y": 37.146}],
    "not_run": [{"backend": "trt", "device": "cuda", "precision": "fp16", "why": NASTY}],
    "passed": False,
}
PIPELINE = {
    "photographs": "crops",
    "count": 3,
    "scale": 2,
    "megapixels_in": 0.5,
    "backend": "onnx fp32, CPU",
    "cores": 2,
    "rounds": 1,
    "rows": [
        {
            "format": name,
            "seconds": {"decode": 1.0, "infer": 4.0, "encode": 2.0, "end to end": 5.0},
            "core_seconds": {"decode": 1.0, "infer": 8.0, "encode": 2.0, "end to end": 11.0},
            "bottleneck": "infer",
            "bound_by": "2 cores",
            "bound_seconds": 5.5,
            "share_of_bound": 0.9,
            "share_of_bound_by_round": [0.9],
            "pictures_per_second": 0.6,
            "megapixels_out_per_second": 0.4,
            "megabytes_in": 1.0,
            "megabytes_out": 4.0,
        }
        for name in ("png", "jpg")
    ],
}
THROUGHPUT = {
    "peaks": {"gflops": 100.0, "gflops_by": "torch", "copy_gb_per_s": 9.5, "copy_by": "numpy"},
    "rounds": 3,
    "cases": [
        {
            "scale": 3,
            "size": "320x180",
            "batch": 1,
            "precision": "fp32",
            "device": "cpu",
            "gmacs": 7.9,
            "megabytes": 433.0,
            "megabytes_at_least": 2.0,
            "against": "srup-onnx",
            "rows": [
                {
                    "backend": name,
                    "latency_ms": {"median": ms, "p90": ms, "p95": ms, "p99": ms},
                    "megapixels_per_s": 518.4 / ms,
                    "time_ratio": {"median": ms / 300, "p10": 1.0, "p90": 1.0},
                    "share_of_flops": 0.5,
                    "share_of_copy": 0.2,
                    "variation": 0.013,
                    "differs_by_levels": 0,
                    "first_run_s": 0.4,
                }
                for name, ms in (("srup-onnx", 300.0), ("torch-eager", 450.0))
            ],
            "missing": [{"backend": "srup-trt", "why": "no NVIDIA GPU"}],
            "warnings": ["the machine was busy"],
        }
    ],
}
MACHINE = {"processor": "A processor", "cores": 2, "system": "Linux", "python": "3.11.7"}


def entries(**results: dict[str, Any]) -> dict[str, Any]:
    given = {name: {"result": result} for name, result in results.items()}
    return {name: {"missing": "not measured in this run"} for name in NAMES} | given


def whole(sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": "2026-11-23",
        "machine": MACHINE,
        "gpus": [],
        "driver": "",
        "versions": {"srup": "0.1.0", "numpy": "2"},
        "command": f"python -m benchmarks.report {NASTY}",
        "revision": "0123456789ab",
        "quick": True,
        "sections": sections,
    }


class Text(HTMLParser):
    """What a page says, and its tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self._hidden = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._hidden = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def source() -> str:
    sections = entries(parity=PARITY, pipeline=PIPELINE, throughput=THROUGHPUT)
    sections["engines"] = {"failed": f"the process died {NASTY}"}
    crop = Crop("kitten", 3, (Shown("truth", DOT), Shown(NASTY, DOT, 30.361)))
    changed = [Change("pipeline", "png", NASTY, 2.0, 3.0)]
    return page(whole(sections), SECTIONS, changed, [crop])


# --- the page -----------------------------------------------------------------------------------


def test_the_page_shows_results_and_gaps(source):
    text = Text(source).text
    for expected in (
        "1 of 3 comparisons",
        "71.5 dB",
        "png 90 % (bottleneck infer), jpg 90 % (bottleneck infer)",
        "x3 srup-onnx 1.73 megapixels a second",
        "the machine was busy",
        "no NVIDIA GPU",
        "not measured in this run",
        "the process died",
        "0.00102 %",
        "equal",
        "+50.0 %",
        "30.36 dB",
        "A quick run",
        "0123456789ab",
    ):
        assert expected in text, expected


def test_markup_in_results_stays_text(source):
    parsed = Text(source)
    assert parsed.text.count(NASTY) >= 5
    assert parsed.of("script") == []
    assert [image["src"] for image in parsed.of("img")] == [DOT, DOT]


def test_the_page_loads_nothing(source):
    parsed = Text(source)
    addresses = [
        value for _, attributes in parsed.tags for value in attributes.values() if value and "//" in value
    ]
    assert {re.sub(r"\d{4}", "", value) for value in addresses} <= {
        "http://www.w3.org//svg",
        "http://www.w3.org//xlink",
    }, "names of vocabularies only"
    assert "url(http" not in source


def test_equal_ids_in_the_page_name_equal_elements(source):
    """Plots share a page: an id that two plots use must mean the same element."""
    links = {link["href"][1:] for link in Text(source).of("a")}
    names = [attributes["id"] for _, attributes in Text(source).tags if attributes.get("id")]
    assert links <= set(names)
    parts = re.findall(r'<(?:path|clipPath)[^>]* id="([^"]+)"[^>]*>', source)
    bodies = {name: set(re.findall(rf'id="{name}"[^>]*>', source)) for name in parts}
    assert all(len(body) == 1 for body in bodies.values())


def test_a_result_of_another_shape_is_shown_in_plain_tables():
    for other in ({"rows": [{"set": "Set5", "psnr_y": 37.1}], "nested": {"a": {"b": 1}}}, {"rows": 3}, {}):
        text = Text(page(whole(entries(parity=other)), SECTIONS, None, [])).text
        assert ("37.10" in text and "nested a b" in text) or "rows" not in other or other["rows"] == 3
    kinds = [block.kind for block in as_it_is({"rows": [{"a": 1}], "more": [{"b": {"c": 2}}], "x": 0.5})]
    assert kinds == ["table", "table", "table"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.000012341, "0.00001234"),
        (1234.5678, "1,235"),
        (0.0, "0"),
        ([75, 80], "75, 80"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_readable(value, text):
    assert number(value) == text


def test_shares_are_percentages():
    assert [percent(share) for share in (0, 1, 0.12345, 0.0000102)] == ["0 %", "100 %", "12.3 %", "0.00102 %"]


STORED = sorted(path for path in RESULTS.glob("*-20??-??-??.json") if any(map(path.stem.startswith, NAMES)))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_results_have_the_form_of_their_section(path):
    """The renderers know what the measurements store."""
    ((name, entry),) = read_results([path]).items()
    if name in RENDERERS:
        assert list(RENDERERS[name](entry["result"]))
        assert HEADLINES[name](entry["result"])


def test_predictions_without_a_measurement_say_so(tmp_path):
    from benchmarks import predict

    result = predict.run(scales=[3], folder=tmp_path)
    text = Text(page(whole(entries(predict=result)), SECTIONS, None, [])).text
    assert "12 predictions, 0 " in text
    assert text.count("not measured") >= 12
    assert "T4" in text


def test_the_plane_shows_the_gap_from_the_front():
    points = [
        {"name": name, "ms_per_megapixel": ms, "set14": db, "set5": db, "ours": ours, "params": 1000}
        | {"macs_per_output_px": 9, "spread": [0.9, 1.1], "source": "measured"}
        for name, ms, db, ours in (
            ("bicubic", 1.0, 26.0, False),
            ("A", 20.0, 28.0, False),
            ("srup", 40.0, 28.5, True),
        )
    ]
    gap = {"name": "srup", "interpolated_db": 0.5, "best_no_slower_db": 0.5, "best_no_slower": "A"}
    gap |= {"on_front": True, "interpolated_db_grey_as_luma": 0.4}
    found = {"scale": 3, "engine": "onnxruntime", "size": "320x176", "rounds": 3, "points": points}
    found |= {"front": ["A", "srup"], "gaps": [gap], "no_figure": [], "missing": [], "warnings": ["busy"]}
    source = page(whole(entries(plane={"planes": [found]})), SECTIONS, None, [])
    text = Text(source).text
    assert "x3 srup +0.50 dB" in text
    assert "busy" in text
    assert "var(--ours)" in source, "ours has a colour of its own"


def test_pictures_as_people_have_them_are_tables_and_curves():
    def row(condition, restored):
        figures = {"bicubic": 30.5, "0": 30.0, "0.5": 31.0, "1": restored, "auto": restored}
        methods = {name: {"psnr_y": value, "psnr_b": value - 1} for name, value in figures.items()}
        return {"set": "Set5", "scale": 2, "condition": condition, "pictures": 5, "methods": methods}

    result = {"rows": [row("clean", 33.25), row("JPEG 50", 32.5), row("JPEG 90", 34.75)]}
    source = page(whole(entries(real=result)), SECTIONS, None, [])
    text = Text(source).text
    assert all(said in text for said in ("Set5 x2, 5 pictures: PSNR-B", "34.75", "JPEG quality", "auto"))
    plot = re.search(r"<svg.*?</svg>", source, re.DOTALL)[0]
    assert re.findall(r">\s*(0\.5|auto)\s*<", plot) == ["auto"]


# --- results ------------------------------------------------------------------------------------


def stored(folder: Path, name: str, content: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_stored_results_are_read_with_their_provenance(tmp_path):
    single = {"date": "2026-01-02", "machine": MACHINE, "gpus": ["NVIDIA L4"], "revision": "abc", **PARITY}
    found = read_results(
        [
            stored(tmp_path, "parity-nvidia-l4-2026-01-02", single),
            stored(tmp_path, "report", whole(entries(pipeline=PIPELINE))),
        ]
    )
    assert found["parity"]["result"] == PARITY
    assert found["pipeline"]["result"] == PIPELINE
    text = Text(page(whole(found), SECTIONS, None, [])).text
    assert all(fact in text for fact in ("2026-01-02", "A processor", "2 cores", "NVIDIA L4", "abc"))


def test_a_report_with_a_gap_does_not_hide_another_result(tmp_path):
    full = stored(tmp_path, "a", whole(entries(parity=PARITY)))
    gap = stored(tmp_path, "b", whole(entries(pipeline=PIPELINE)))
    assert read_results([full, gap])["parity"]["result"] == PARITY


@pytest.mark.parametrize(
    ("name", "content"), [("parity", "[1"), ("parity", "[1]"), ("holiday", "{}"), ("missing", None)]
)
def test_a_file_without_results_is_refused(tmp_path, name, content):
    path = tmp_path / f"{name}.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        read_results([path])


def test_changes_are_found_by_row_and_name():
    faster = json.loads(json.dumps(PIPELINE))
    faster["rows"][0] |= {"bottleneck": "encode", "share_of_bound": 0.99, "pictures_per_second": 0.603}
    faster["rows"][1]["seconds"]["infer"] = 2.0
    old, new = entries(pipeline=PIPELINE), entries(pipeline=faster, parity=PARITY)
    found = {(one.row, one.figure): (one.old, one.new) for one in changes(old, new)}
    assert found == {("png", "share_of_bound"): (0.9, 0.99), ("jpg", "seconds infer"): (4.0, 2.0)}
    assert changes(new, new) == []


def test_rows_keep_their_identity_when_their_order_changes():
    turned = {**PARITY, "rows": PARITY["rows"][::-1]}
    assert changes(entries(parity=PARITY), entries(parity=turned)) == []


# --- running ------------------------------------------------------------------------------------


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (3,)


def test_a_measurement_that_kills_its_process_is_one_gap():
    engines = next(section for section in SECTIONS if section.name == "engines")
    found = measured(engines, Inputs(photographs=Deadly()))  # type: ignore[arg-type]
    assert found.keys() == {"failed"}
    assert found["failed"].endswith("python -m benchmarks.engines")


def test_a_measurement_that_raises_is_one_gap():
    found = measured(Section("no_such", "", "", no_settings), Inputs())
    assert found["failed"].startswith("StopIteration")


@pytest.mark.parametrize("name", NAMES)
def test_every_section_is_a_script_of_its_own(name):
    assert importlib.util.find_spec(f"benchmarks.{name}")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.main, list(map(str, arguments)))


@pytest.mark.slow
def test_a_report_is_measured_written_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(report_crops, "shipped_scales", lambda: [2])
    path = tmp_path / "new" / "report.html"
    result = run("--quick", "--only", "guard", "-o", path)
    assert result.exit_code == 0, result.output
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["versions"]["numpy"]
    assert content["quick"] is True
    assert content["sections"]["guard"]["result"]["models"]
    assert content["sections"]["parity"] == {"missing": "not measured in this run"}
    text = Text(path.read_text()).text
    assert "Side by side" in text
    assert "onnx cpu fp32" in text
    monkeypatch.setattr(command, "example_crops", lambda: [])
    again = run(
        "--from", path.with_suffix(".json"), "--compare", path.with_suffix(".json"), "-o", tmp_path / "b.html"
    )
    assert again.exit_code == 0, again.output
    assert "2 %" in again.stdout
    assert "by more than 2 %" in Text((tmp_path / "b.html").read_text()).text
    assert [found.name for found in tmp_path.iterdir() if found.name.startswith(".")] == []


@pytest.fixture
def no_crops(monkeypatch):
    monkeypatch.setattr(command, "example_crops", lambda: [])


def test_a_change_is_printed_and_a_failure_gives_status_1(tmp_path, no_crops):
    slower = json.loads(json.dumps(PIPELINE))
    slower["rows"][0]["share_of_bound"] = 0.45
    old, new = stored(tmp_path, "pipeline", PIPELINE), stored(tmp_path, "pipeline-new", slower)
    result = run("--from", new, "--compare", old, "-o", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "pipeline: png: share_of_bound 0.9 -> 0.45 (-50.0 %)" in result.stdout
    failing = run("--from", stored(tmp_path, "parity", PARITY), "-o", tmp_path / "r.html")
    assert failing.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "status", "fact"),
    [
        (("--from", "x.json", "--quick"), 2, "--quick"),
        (("-o", "report.json"), 2, "report.html"),
        (("--from", "none.json"), 1, "none.json: "),
        (("--photographs", "nowhere"), 2, "nowhere"),
        (("Set5=nowhere",), 2, "nowhere: "),
    ],
)
def test_wrong_usage_is_one_error(arguments, status, fact, no_crops):
    result = run(*arguments)
    assert result.exit_code == status
    assert fact in result.output


def test_an_unwritable_output_is_one_line(tmp_path, no_crops):
    (tmp_path / "file").write_text("")
    result = run("--from", stored(tmp_path, "pipeline", PIPELINE), "-o", tmp_path / "file" / "r.html")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'file' / 'r.html'}: ")


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with Browser() as started:
        yield started


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_is_readable(browser, tmp_path, source, width, scheme):
    path = tmp_path / "report.html"
    path.write_text(source, encoding="utf-8")
    browser.errors.clear()
    browser.requests.clear()
    browser.scheme(scheme)
    browser.size(width=width, height=800)
    browser.open(path)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.run("document.documentElement.scrollWidth") <= width, (
        "only tables and plots scroll sideways"
    )
    colours = browser.run(
        "[...document.querySelectorAll('svg text, p, td, figcaption')].map(e => [getComputedStyle(e).fill,"
        " getComputedStyle(e).color, e.namespaceURI.includes('svg')])"
    )
    back = rgb(browser.run("getComputedStyle(document.body).backgroundColor"))
    for fill, colour, drawn in colours:
        assert contrast(rgb(fill if drawn else colour), back) >= 4.5
    sizes = browser.run(
        "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    )
    assert sizes
    assert min(sizes) >= 9
    assert browser.screenshot().std() > 5


def rgb(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def contrast(first: list[int], second: list[int]) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it."""

    def luminance(colour: list[int]) -> float:
        linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_plots_draw_what_they_are_given(browser, tmp_path, source):
    """The bars of a plot are as long as its numbers say."""
    path = tmp_path / "report.html"
    path.write_text(source, encoding="utf-8")
    browser.size(width=1200, height=800)
    browser.open(path)
    widths = browser.run(
        "[...document.querySelectorAll('#throughput ~ figure svg path')]"
        ".filter(e => getComputedStyle(e).fill == 'rgb(47, 111, 196)')"
        ".map(e => e.getBoundingClientRect().width)"
    )
    assert len(widths) == 2
    assert widths[0] / widths[1] == pytest.approx(450 / 300, rel=0.02)
