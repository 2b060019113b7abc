"""Which ONNX files of other programs must not be run."""

from __future__ import annotations

from pathlib import Path

from sr.errors import ModelError
from sr.network.foreign.graph import MOST_NODES, Call, Graph

# Domains whose operators ONNX Runtime brings itself; operators of others need a library of the author's.
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview")

# Operators that can repeat work any number of times.
_LOOPS = ("Loop", "Scan", "SequenceMap")

# Values of a 4096x4096 image: the largest output whose size is a constant of the file.
_LARGEST_CONSTANT_SIZE = 2**24
_LARGEST_EXTERNAL = 2**33  # bytes of tensors in other files; the largest published upscalers take half a GiB
_MOST_FUNCTIONS = 1000


def check_graph(graph: Graph, path: Path) -> None:
    """Check that a file can be run safely.

    Raises:
        ModelError: it has tensors outside its folder, custom operators, loops, sparse tensors,
            functions that expand without end, or enormous constants.
    """
    _check_external(graph, path)
    if graph.sparse:
        raise ModelError(f"{path}: refused, it has sparse tensors; export it with plain ones")
    _check_functions(graph, path)
    if custom := sorted(graph.domains.difference(_KNOWN_DOMAINS)):
        raise ModelError(f"{path}: refused, it has custom operators (domain {custom[0]!r})")
    if loops := [name for name in _LOOPS if graph.operators[name]]:
        raise ModelError(f"{path}: refused, it has loops (operator {loops[0]}); only plain graphs are run")
    for operator, values in graph.sizes.items():
        if values > _LARGEST_CONSTANT_SIZE:
            raise ModelError(f"{path}: refused, its operator {operator} makes {values:.2g} values of each")


def _check_external(graph: Graph, path: Path) -> None:
    """Check where tensors outside the file are.

    Raises:
        ModelError: outside the folder of the file, missing, or too large.
    """
    folder, total = path.resolve().parent, 0
    for name in graph.external:
        try:
            inside = (folder / name).resolve().is_relative_to(folder) and not Path(name).is_absolute()
            found = inside and (folder / name).is_file()
            total += (folder / name).stat().st_size if found else 0
        except (OSError, ValueError) as error:  # a name that no file can have
            raise ModelError(
                f"{path}: refused, it reads {name[:80]!r}, which is no name of a file"
            ) from error
        if not inside:
            raise ModelError(f"{path}: refused, it reads {name!r}, which is outside its folder")
        if not found:
            raise ModelError(
                f"{path}: its tensors are in {name!r}, which is missing; put it beside the model"
            )
    if total > _LARGEST_EXTERNAL:
        raise ModelError(f"{path}: refused, the tensors beside it take {total / 2**30:.0f} GiB")


def _check_functions(graph: Graph, path: Path) -> None:
    """Check how many nodes a graph has once each call of a function is replaced by its nodes.

    Raises:
        ModelError: too many, or without end.
    """
    if len(graph.functions) > _MOST_FUNCTIONS:
        raise ModelError(f"{path}: refused, it has more than {_MOST_FUNCTIONS:,} functions")
    sizes: dict[Call, int] = {}
    while len(sizes) < len(graph.functions):  # from functions that call no others to those that do
        known = {
            key: sum(sizes.get(call, 1) for call in body)
            for key, body in graph.functions.items()
            if key not in sizes and all(call in sizes or call not in graph.functions for call in body)
        }
        if not known:
            raise ModelError(f"{path}: refused, a function of it calls itself")
        sizes |= known
    if sum(sizes.get(call, 1) for call in graph.calls) > MOST_NODES:
        raise ModelError(f"{path}: refused, it has more than {MOST_NODES:,} nodes")
