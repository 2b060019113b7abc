"""A foreign network as a function from pictures to pictures; on ONNX Runtime, or whatever runs tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sr.errors import ModelError, one_line
from sr.network.ends import Ends
from sr.network.foreign.graph import Graph, read_graph

_ERRORS_ONLY = 3  # log severity of ONNX Runtime


class PictureSession(ABC):
    """Runs tensors on the CPU, and so pictures.

    Attributes:
        graph: inputs, outputs and metadata of the network.
    """

    graph: Graph

    @abstractmethod
    def tensor(self, ends: Ends, tensor: NDArray[Any]) -> NDArray[Any]:
        """Run a tensor as the network takes it; return its first output.

        Raises:
            ModelError: the network failed.
            MemoryError: it needs more memory than the process may have.
        """

    def pictures(self, ends: Ends, batch: NDArray[np.uint8]) -> NDArray[Any]:
        """Run pictures (N, H, W, 3); return the output as the network gives it.

        Raises:
            ModelError: as `tensor`.
        """
        return ends.in_batches(lambda part: self.tensor(ends, part), ends.tensor_from_batch(batch))

    def upscaled(self, ends: Ends, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale a picture (H, W, 3).

        Raises:
            ModelError: as `tensor`.
        """
        output = self.pictures(ends, picture[None])
        upscaled: NDArray[np.uint8] = ends.batch_from_tensor(output, np.dtype(np.uint8))[0]
        return upscaled


class ForeignSession(PictureSession):
    """An ONNX file on ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            ModelError: ONNX Runtime does not take it.
        """
        self.graph = read_graph(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises exception classes of its own that it does not export
            raise ModelError(f"{path}: ONNX Runtime cannot load it ({one_line(error)})") from error

    def tensor(self, ends: Ends, tensor: NDArray[Any]) -> NDArray[Any]:
        """Run a tensor as the network takes it; return its first output.

        Raises:
            ModelError: ONNX Runtime failed.
            MemoryError: it needs more memory than the process may have.
        """
        try:
            (result,) = self._session.run([ends.output_name], {ends.input_name: tensor})
        except Exception as error:
            if "alloc" in str(error):  # std::bad_alloc, "Failed to allocate memory ..."
                raise MemoryError from error
            raise ModelError(one_line(error)) from error
        return np.asarray(result)
