"""Settings on a GPU: one backend is open at a time, and failures leave the others; host time against GPUs."""

from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu import Variant, rates, variants
from benchmarks.lib.devices import GPUS
from benchmarks.predict import Job, predict
from benchmarks.runtime_overhead import host_per_gpu_time
from sr.backends import BACKENDS
from sr.errors import BackendError

IMAGE = np.zeros((8, 10, 3), np.uint8)


def test_one_backend_is_open_at_a_time_and_each_in_every_round():
    able, open_now, order = [*map(Variant, "abc")], [], []

    @contextmanager
    def opener(variant, scale):
        assert not open_now
        open_now.append(variant)
        order.append(variant.backend)
        yield lambda image: None
        open_now.clear()

    found = rates(2, IMAGE, able, rounds=3, opener=opener)
    assert list(found) == ["a", "b", "c"]
    assert [order.count(name) for name in "abc"] == [3, 3, 3]
    assert len({order[0], order[3], order[6]}) > 1


def test_a_variant_that_fails_is_named_and_left_out(capsys):
    @contextmanager
    def opener(variant, scale):
        if variant.batch == 8:
            raise BackendError("out of memory")
        yield lambda image: None

    found = rates(2, IMAGE, [Variant("trt", 256, 4), Variant("trt", 256, 8)], rounds=2, opener=opener)
    assert list(found) == ["trt, tiles of 256, batches of 4"]
    assert capsys.readouterr().err.count("batches of 8: out of memory") == 1


def test_rates_are_megapixels_of_output():
    image, settings = np.zeros((1000, 1000, 3), np.uint8), {"rounds": 1, "opener": lambda *_: cheap()}
    assert rates(3, image, [Variant("onnx")], timer=lambda action: 0.5, **settings) == {"onnx": 18.0}


def test_shares_are_of_the_engine_of_the_same_scale_and_backend():
    rows = [
        {"scale": scale, "ran": ran, "megapixels_out_per_second": 95.0}
        for scale, ran in ((2, "trt, tiles of 256"), (3, "trt"), (2, "onnx"))
    ]
    engines = {(2, "trt"): 100.0, (3, "trt"): 200.0, (2, "onnx"): None}
    reached, short, other = (gpu.of_engine(row, engines) for row in rows)
    assert (reached["share_of_engine"], reached["reaches_goal"]) == (0.95, True)
    assert (short["share_of_engine"], short["reaches_goal"]) == (0.475, False)
    assert other == rows[2]


def test_encoding_is_measured():
    assert gpu.encoding_rate(np.zeros((300, 400, 3), np.uint8)) > 0


@contextmanager
def cheap():
    yield lambda image: None


@pytest.mark.parametrize("name", [name for name, spec in BACKENDS.items() if spec.gpu_rank])
def test_each_variant_has_a_name_of_its_own(name):
    names = [*map(str, variants(name))]
    assert len(set(names)) == len(names)
    assert all(each.split(",")[0] == name for each in names)


def test_settings_reach_the_upscaler():
    """On the CPU in place of a GPU: tile, batch and equal tiles are those of the variant."""
    with gpu.opened(Variant("onnx", 64, 2), 2, device="cpu") as upscaler:
        assert (upscaler.spec.tile, upscaler.batch) == (64, 2)
    with (
        gpu.opened(Variant("onnx", 64, equal=False), 2, device="cpu") as fixed,
        gpu.opened(Variant("onnx", 64, equal=True), 2, device="cpu") as equal,
    ):
        assert fixed.grid(70, 70).tile_height == 64
        assert equal.grid(70, 70).tile_height < 64


def test_host_time_is_related_to_each_gpu_by_hand():
    found = host_per_gpu_time(10.0, 2, (500, 500))
    for device in GPUS:
        megapixels_a_second = predict(device, Job.shipped(2, (500, 500), precision="fp16", batch=4)).roofline
        assert found[device.name] == pytest.approx(0.010 / (1.0 / megapixels_a_second), abs=0.01)
    assert found["H100"] > found["A100"] > found["T4"]
