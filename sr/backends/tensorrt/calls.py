"""Calls of a TensorRT module, checked: most of them answer None or False and write the reason to a log."""

from __future__ import annotations

from typing import Any

from sr.errors import BackendError, OutOfDeviceMemoryError

_OUT_OF_MEMORY_WORDS = ("out of memory", "outofmemory", "memoryallocation", "out_of_memory")


class Calls:
    """Checked calls of a TensorRT module on one GPU.

    Attributes:
        log: of the module.
    """

    def __init__(self, name: str, log: Any, *, device: int) -> None:
        self.log = log
        self._name, self._device = name, device

    def ask(self, what: str, function: Any, *arguments: Any) -> Any:
        """Call a function whose every answer is valid; its exceptions become errors of ours."""
        mark = self.log.mark()
        try:
            return function(*arguments)
        except RuntimeError as error:
            raise self._failure(what, mark, str(error)) from error

    def make(self, what: str, function: Any, *arguments: Any) -> Any:
        """Call a function that answers None or False if it fails.

        Raises:
            OutOfDeviceMemoryError: memory ran out, by what TensorRT logged.
            BackendError: it failed for another reason.
        """
        mark = self.log.mark()
        answer = self.ask(what, function, *arguments)
        if answer is None or answer is False:
            raise self._failure(what, mark, "no reason given")
        return answer

    def size(self, what: str, function: Any) -> int:
        """Call a function that answers a number of bytes, or 0 and an error in the log if it fails.

        Raises:
            OutOfDeviceMemoryError, BackendError: as `make`.
        """
        mark = self.log.mark()
        answer = int(self.ask(what, function))
        if answer == 0 and self.log.since(mark):
            raise self._failure(what, mark, "")
        return answer

    def _failure(self, what: str, mark: int, otherwise: str) -> BackendError:
        reason = " ".join("; ".join(self.log.since(mark)).split()) or otherwise
        message = f"GPU {self._device}: {self._name} failed ({what}): {reason}"
        if any(word in reason.lower() for word in _OUT_OF_MEMORY_WORDS):
            return OutOfDeviceMemoryError(message)
        return BackendError(message)
