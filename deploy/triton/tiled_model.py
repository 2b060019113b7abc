"""The Python model of a Triton model repository: takes a picture and returns it upscaled, tile by tile.

Triton's Python backend runs it through `model.py`, see `deploy.triton.model`; nothing else imports it.
docs/serving.md says what requests and answers hold. Every tile is one request to the engine model of the same
server ("business logic scripting"). All tiles have one shape, so the engine's dynamic batcher joins tiles of
pictures of different sizes.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sr.backends.base import Backend, BackendInfo, Batch
from sr.errors import BackendError, ImageError, SrupError, TooLargeError
from sr.fitting import fitted_grid
from sr.image import Picture, check_output, open_picture, spooled, write_options, write_picture
from sr.network.descriptor import ModelDescriptor
from sr.network.ends import FINITE_NAME, INPUT_NAME, OUTPUT_NAME
from sr.tiling import TileGrid
from sr.upscale import Upscaler
from sr.version import __version__

# Inputs and outputs, beside `image` and `upscaled`: encoded picture files, a byte per element.
FILE_NAME, OUTPUT_FILE_NAME = "file", "upscaled_file"

# Request parameters beside `format`, and their values: those of `sr.image.write_options`.
ENCODING: dict[str, Container[object]] = {
    "quality": range(101),
    "lossless": (True, False),
    "subsampling": ("4:4:4", "4:2:2", "4:2:0"),
    "png_level": range(10),
    "tiff_compression": ("lzw", "deflate", "none"),
}

# The last version of which numpy 1 wheels exist is Python 3.12. With numpy 2, Python backends that were built
# for numpy 1 read zeros in place of tensors, without an error (seen with Triton 24.10).
_NUMPY_1_PYTHON = (3, 12)


@dataclass(frozen=True)
class Settings:
    """What the parameters of the model's configuration say, and `model.json` beside `model.py`.

    Attributes:
        model: descriptor of the engine's ONNX file.
        engine: name of the Triton model that upscales tiles.
        exact: name of the float32 model for tiles whose fp16 output is not finite; empty if there is none.
        tile: side in lr pixels of every tile that fits into the picture, halo included.
        halo: lr pixels; the overlap of tiles.
        in_flight: tiles of one picture that wait for the engine at once.
        max_pixels: a picture with more is refused before it is decoded.
        max_bytes: a picture file with more is refused.
        version: of the srup that wrote the repository.
    """

    model: ModelDescriptor
    engine: str
    exact: str
    tile: int
    halo: int
    in_flight: int
    max_pixels: int
    max_bytes: int
    version: str

    @staticmethod
    def read(config: Mapping[str, Any], properties: Path) -> Settings:
        """Read the configuration that Triton passes on, and the descriptor of the engine's ONNX file.

        Raises:
            KeyError: a parameter is missing.
            ModelError: the descriptor is not one of srup.
            OSError: there is no file of it.
        """
        given = {name: value.get("string_value", "") for name, value in config["parameters"].items()}
        return Settings(
            ModelDescriptor.from_properties(json.loads(properties.read_bytes()), source=str(properties)),
            engine=given["engine"],
            exact=given["exact"],
            tile=int(given["tile"]),
            halo=int(given["halo"]),
            in_flight=int(given["in_flight"]),
            max_pixels=int(given["max_pixels"]),
            max_bytes=int(given["max_bytes"]),
            version=given["version"],
        )


class EngineBackend(Backend):
    """Runs tiles on the engine model of this server: a request for each, several at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.in_flight)
        self._has_finite = settings.model.precision == "fp16"
        self.info = BackendInfo(
            name="triton",
            device=f"model {settings.engine}",
            model=settings.model,
            default_tile=settings.tile,
            default_batch=1,
            max_tile=settings.tile,
            max_batch=1,
        )

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Upscale batches in order; up to `in_flight` are at the engine at once."""
        flying: deque[Future[Batch]] = deque()
        try:
            for batch in batches:
                flying.append(self._pool.submit(self._upscaled, batch))
                if len(flying) == self._settings.in_flight:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()
            wait(flying)  # a request to the engine must end before the one that made it

    def _upscaled(self, batch: Batch) -> Batch:
        settings = self._settings
        outputs = [OUTPUT_NAME, FINITE_NAME] if self._has_finite else [OUTPUT_NAME]
        result = _inferred(settings.engine, batch, outputs)
        if self._has_finite and not bool((result[FINITE_NAME] > 0).all()):
            if not settings.exact:
                raise BackendError(
                    f"the output of {settings.engine} is not finite in fp16, and no fp32 model is configured"
                )
            result = _inferred(settings.exact, batch, [OUTPUT_NAME])
        return result[OUTPUT_NAME]

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()


def _inferred(model: str, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray]:
    """Ask another model of this server.

    Raises:
        BackendError: it failed.
    """
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[pb_utils.Tensor(INPUT_NAME, batch)],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise BackendError(f"model {model} failed: {response.error().message()}")
    return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}


class TiledUpscaler(Upscaler):
    """Cuts tiles of one size, so that those of all pictures have the same shape."""

    def grid(self, height: int, width: int) -> TileGrid:
        """Return how a picture of this size will be cut; what is smaller than a tile stays whole."""
        return fitted_grid(height, width, replace(self.spec, equalise=False), self.backend.info.model)


class TritonPythonModel:
    """What Triton's Python backend calls; each instance is a process and answers one request at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration.

        Raises:
            RuntimeError: the server's Python backend cannot work with the installed numpy.
        """
        properties = Path(args["model_repository"]) / args["model_version"] / "model.json"
        self.settings = Settings.read(json.loads(args["model_config"]), properties)
        if int(np.__version__.partition(".")[0]) >= 2 and sys.version_info[:2] <= _NUMPY_1_PYTHON:
            raise RuntimeError(
                f"numpy {np.__version__} is installed, and Triton's Python backend needs numpy 1; "
                'install it in the server\'s Python: pip install "numpy<2"'
            )
        if self.settings.version != __version__:
            pb_utils.Logger.log_warn(
                f"{args['model_name']} was exported by srup {self.settings.version}, and srup {__version__} "
                "is installed here; export it again if it fails"
            )
        settings = self.settings
        backend = EngineBackend(settings)
        self.upscaler = TiledUpscaler(backend=backend, tile=settings.tile, halo=settings.halo, batch=1)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests; one that fails is answered with its error, and the others go on."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """Free what `initialize` opened."""
        self.upscaler.close()

    def _answer(self, request: Any) -> Any:
        try:
            outputs = self._outputs(request)
        except ImageError as error:
            return _failure(error, pb_utils.TritonError.INVALID_ARG)
        except SrupError as error:
            return _failure(error, pb_utils.TritonError.INTERNAL)
        except MemoryError:
            return _failure("not enough memory for this picture", pb_utils.TritonError.UNAVAILABLE)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])

    def _outputs(self, request: Any) -> dict[str, NDArray]:
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if len(given) != 1:
            raise ImageError(f"a request needs one input, {FILE_NAME} or {INPUT_NAME}, and has {len(given)}")
        parameters = json.loads(request.parameters() or "{}")
        suffix = f".{parameters.pop('format', 'png')}"
        for name, value in parameters.items():
            if name not in ENCODING or value not in ENCODING[name]:
                raise ImageError(
                    f"no parameter {name} with value {value!r}; there are format, {', '.join(ENCODING)}"
                )
        wanted = set(request.requested_output_names())
        if wanted >= {OUTPUT_NAME, OUTPUT_FILE_NAME}:  # the client named none: answer in kind
            wanted = {OUTPUT_FILE_NAME if FILE_NAME in given else OUTPUT_NAME}
        options = write_options(suffix, **parameters) if OUTPUT_FILE_NAME in wanted else None
        picture = self._decoded(given[FILE_NAME]) if FILE_NAME in given else self._picture(given[INPUT_NAME])
        target, stream = Path(f"{OUTPUT_FILE_NAME}{suffix}"), BytesIO()
        if options is not None:
            height, width = self.upscaler.output_size(picture.height, picture.width)
            check_output(target, height=height, width=width, alpha=picture.transparent, stream=stream)
        picture = self.upscaler.picture(picture)
        if options is None:
            return {OUTPUT_NAME: _array(picture)}
        write_picture(target, picture, options=options, stream=stream)
        return {OUTPUT_FILE_NAME: np.frombuffer(stream.getbuffer(), np.uint8)}

    def _decoded(self, content: NDArray) -> Picture:
        """Decode a picture file, (bytes,) uint8.

        Raises:
            ImageError: it is no single picture of 8 bits per channel, or too large.
        """
        limit = self.settings.max_bytes
        if content.size > limit:
            raise TooLargeError(f"{FILE_NAME}: {content.size:,} bytes, the limit is {limit:,} (max_bytes)")
        with spooled(BytesIO(content.data), FILE_NAME) as file:
            picture = open_picture(Path(FILE_NAME), file, max_pixels=self.settings.max_pixels)
        if not isinstance(picture, Picture):
            raise ImageError(
                f"{FILE_NAME}: a {picture.format} with {picture.count} {picture.kind}, need one; "
                "send single pictures"
            )
        if picture.sixteen_bit:
            raise ImageError(
                f"{FILE_NAME}: 16 bits per channel, need 8; convert it first, or use srup upscale"
            )
        return picture

    def _picture(self, image: NDArray) -> Picture:
        """Return (H, W, C) uint8 as a picture; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

        Raises:
            ImageError: it has another shape, or is too large.
        """
        height, width, channels = image.shape
        if height < 1 or width < 1 or not 1 <= channels <= 4:
            raise ImageError(f"{INPUT_NAME}: shape {image.shape}, need (H, W, C) with C from 1 to 4")
        limit = self.settings.max_pixels
        if height * width > limit:
            raise TooLargeError(
                f"{INPUT_NAME}: {width}x{height} are {height * width:,} pixels, the limit is {limit:,} "
                "(max_pixels)"
            )
        alpha = np.ascontiguousarray(image[..., -1]) if channels in (2, 4) else None
        return Picture(image[..., 0] if channels < 3 else image[..., :3], alpha)


def _array(picture: Picture) -> NDArray:
    """Return the pixels of a picture as (H, W, C), the alpha channel last."""
    colours = picture.pixels[..., None] if picture.grey else picture.pixels
    whole = colours if picture.alpha is None else np.dstack((colours, picture.alpha))
    return np.ascontiguousarray(whole)


def _failure(problem: object, code: Any) -> Any:
    message = " ".join(str(problem).splitlines())
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
