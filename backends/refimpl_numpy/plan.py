"""NumPy calls planned once and made again without allocating: how the hand-derived backend gets fast.

`Plan` runs a function of arrays once over `Traced` arrays, which note every NumPy call, and writes the noted calls out
as a straight-line program in which every call has its `out=`: `Plan.source` is that program, for anyone to read. A
value is computed once however often it is asked for, memory is used again as soon as its value is dead, and runs of
elementwise calls over large arrays are made block of rows by block of rows, so that what lies between them stays in
the processor's cache.

Nothing is derived here and no mathematics is stated: what is computed, and in which order, is
``refimpl/equations/dense.py`` as ``network.py`` applies it. What cannot be noted (:mod:`refimpl_numpy.noting`) is
`Unplanned`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl_numpy.noting import Node, Trace, Traced

Array = NDArray[Any]
BLOCK_BYTES = 2**17  # of one array's rows: a handful of them fit into a second-level cache
LARGE_BYTES = 2**20  # from here on elementwise calls are made block by block
DOT_SIZE = 2**12  # sums up to this size are products with ones, which cost half a call of add.reduce


class Plan:
    """A function of named arrays as a program over planned memory.

    `bind(arrays, out)` takes the arrays by name, in the shapes and dtypes of those it was planned with, and the arrays
    for the results, C-contiguous and of the results' shapes; what it returns runs the program on what they hold and
    returns the memory of the scalar, which the next run overwrites. It is for one thread at a time.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Any, Mapping[str, Any]]],
        inputs: Mapping[str, Array],
        xp: ModuleType = np,
    ) -> None:
        """The plan of `function(**inputs)`, which returns a scalar and arrays by name. Raises Unplanned where it does
        what cannot be noted.
        """
        trace = Trace()
        # shapes and dtypes are all that matters, so nothing is computed with the arrays themselves, nor on a device
        values = {name: np.ones(array.shape, array.dtype) for name, array in inputs.items()}
        arrays = {name: Traced(trace, trace.node("input", array, detail=name), array) for name, array in values.items()}
        scalar, outputs = function(**arrays)
        writer = _Writer(trace.nodes, {name: value.node for name, value in outputs.items()}, scalar.node, xp)
        self.source = writer.source()
        self.allocated = sum(memory.nbytes for memory in writer.memories)  # bytes
        space = dict(writer.space)
        exec(compile(self.source, "<plan>", "exec"), space)
        self.bind: Callable[[Mapping[str, Array], Mapping[str, Array]], Callable[[], Array]] = space["bind"]


class _Writer:
    """Decides where every value lives, and writes the calls."""

    def __init__(self, nodes: Sequence[Node], outputs: Mapping[str, Node], scalar: Node, xp: ModuleType) -> None:
        self.outputs, self.scalar, self.xp = outputs, scalar, xp
        self.space: dict[str, Any] = {"copyto": xp.copyto, "dot": xp.dot, "row_max": _row_max(xp)}
        self.memories: list[Array] = []
        self.free: dict[tuple[Any, ...], list[str]] = {}
        self.names: dict[int, str] = {}  # of what a node's memory is called, by id
        self.head: dict[str, str] = {}
        self.lines: list[str] = []
        self.nodes = _needed(nodes, [*outputs.values(), scalar])
        self.steps = [node for node in self.nodes if node.kind not in ("input", "constant", "view")]
        self.position = {id(node): index for index, node in enumerate(self.steps)}
        self.last = _last_uses(self.steps, [*outputs.values(), scalar])

    def source(self) -> str:
        """The program."""
        for node in self.nodes:
            if node.kind == "input":
                self.names[id(node)] = node.detail
                self.head[node.detail] = f"arrays[{node.detail!r}]"
            elif node.kind == "constant":
                self.names[id(node)] = self._named("c", _constant(node.detail, self.xp))
        copied = [name for name, node in self.outputs.items() if not self._write_to(f"out_{name}", name, node)]
        for group in _groups(self.steps):
            if self._is_large(group):
                self._blocks(group)
            else:
                for node in group:
                    self._step(node)
        self.lines += [f"copyto(out_{name}, {self._reference(self.outputs[name])})" for name in copied]
        self.lines.append(f"return {self._reference(self.scalar)}")
        head = [f"{name} = {value}" for name, value in self.head.items()]
        program = ["def program():", *(f"    {line}" for line in self.lines)]
        return "\n    ".join(["def bind(arrays, out):", *head, *program, "return program"]) + "\n"

    def _is_large(self, group: Sequence[Node]) -> bool:
        node = group[0]
        large = len(node.shape) == 2 and node.size * node.dtype.itemsize >= LARGE_BYTES
        return large and node.elementwise and self.xp is np

    # Where values live

    def _write_to(self, out: str, name: str, node: Node) -> bool:
        """Whether an output can be computed where the caller wants it."""
        self.head[out] = f"out[{name!r}]"
        base, reshaped = node.base, node.kind == "view" and node.detail != "T" and node.operands[0] is node.base
        if base.kind in ("input", "constant") or id(base) in self.names or not (node is base or reshaped):
            return False
        self.names[id(base)] = out if node is base else self._view(out, f"reshape({base.shape})")
        return True

    def _named(self, letter: str, value: Any) -> str:
        name = f"{letter}{len(self.space)}"
        self.space[name] = value
        return name

    def _memory(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
        """The name of memory that is not in use: what was freed last, which the cache still holds, or more."""
        free = self.free.get((shape, dtype))
        if free:
            return free.pop()
        self.memories.append(self.xp.empty(shape, dtype))
        return self._named("m", self.memories[-1])

    def _place(self, node: Node) -> str:
        """Where the result goes: to an output's array, or into free memory."""
        if id(node) not in self.names:
            self.names[id(node)] = self._memory(node.shape, node.dtype)
        return self.names[id(node)]

    def _place_over(self, node: Node, index: int, taken: Sequence[Node]) -> str:
        """`_place`, or into an operand that is used here for the last time."""
        for operand in taken if id(node) not in self.names else ():
            same = operand.kind not in ("input", "constant", "view") and operand.shape == node.shape
            if same and operand.dtype == node.dtype and self.last[id(operand)] == index:
                del self.last[id(operand)]  # its memory is not free after this step
                self.names[id(node)] = self.names[id(operand)]
                break
        return self._place(node)

    def _release(self, node: Node, index: int) -> None:
        for base in {id(operand.base): operand.base for operand in node.operands}.values():
            if base.kind not in ("input", "constant") and self.last.get(id(base)) == index:
                self.free.setdefault((base.shape, base.dtype), []).append(self.names[id(base)])

    def _reference(self, node: Node) -> str:
        """An expression for the value in its own shape. Views of planned memory are made beforehand."""
        if node.kind != "view":
            return self.names[id(node)]
        if id(node) not in self.names:
            self.names[id(node)] = self._view(self._reference(node.operands[0]), node.detail)
        return self.names[id(node)]

    def _view(self, of: str, how: str) -> str:
        if of in self.space:
            array: Any = self.space[of]
            return self._named("v", array.T if how == "T" else array.reshape(_shape(how)))
        name = f"{of}_{''.join(character if character.isalnum() else '_' for character in how).strip('_')}"
        self.head[name] = f"{of}.{how}"
        return name

    # Calls

    def _call(self, node: Node, out: str, operands: Sequence[str]) -> list[str]:
        if node.kind == "where":
            condition, one, other = operands
            return ([] if out == other else [f"copyto({out}, {other})"]) + [f"copyto({out}, {one}, where={condition})"]
        if node.kind == "cast":
            return [f"copyto({out}, {operands[0]})"]
        name = node.detail.__name__
        self.space[name] = getattr(self.xp, name)
        keyword = "out=" if name in ("maximum", "minimum") else ""  # of these NumPy takes no third array without it
        return [f"{name}({', '.join(operands)}, {keyword}{out})"]

    def _step(self, node: Node) -> None:
        index = self.position[id(node)]
        operands = [self._reference(operand) for operand in node.operands]
        if node.elementwise:
            out = self._place_over(node, index, node.operands[2:] if node.kind == "where" else node.operands)
            self.lines += self._call(node, *self._aligned(node, out, operands))
        else:
            out = self._place(node)
            self.lines.append(getattr(self, f"_{node.kind}")(node, out, operands))
        self._release(node, index)

    def _aligned(self, node: Node, out: str, operands: Sequence[str]) -> tuple[str, list[str]]:
        """For a batch of one, (1, n) and (n,) as rows alike: broadcasting them costs more than adding them."""
        shapes = {operand.shape for operand in node.operands if operand.shape} | {node.shape}
        if len(shapes) == 1 or {math.prod(shape) for shape in shapes} != {node.size}:
            return out, list(operands)
        flat = f"reshape({(node.size,)})"
        return self._view(out, flat), [
            self._view(name, flat) if len(operand.shape) > 1 else name
            for name, operand in zip(operands, node.operands, strict=True)
        ]

    def _matmul(self, node: Node, out: str, operands: Sequence[str]) -> str:
        return f"dot({', '.join(operands)}, {out})"

    def _sum(self, node: Node, out: str, operands: Sequence[str]) -> str:
        (operand,), (axis, _) = node.operands, node.detail
        if axis == 0:
            return f"dot({self._ones(operand.shape[0], node)}, {operands[0]}, {out})"
        if axis == 1:
            flat = self._view(out, f"reshape({(operand.shape[0],)})")
            return f"dot({operands[0]}, {self._ones(operand.shape[1], node)}, {flat})"
        if operand.size <= DOT_SIZE and operand.kind != "view":
            flat = self._view(operands[0], f"reshape({(operand.size,)})")
            return f"dot({self._ones(operand.size, node)}, {flat}, {out})"
        self.space["total"] = np.add.reduce if self.xp is np else self.xp.sum
        return f"total({operands[0]}, None, None, {out})"

    def _ones(self, size: int, node: Node) -> str:
        name = f"ones{size}"
        self.space[name] = self.xp.ones(size, node.dtype)
        return name

    def _max(self, node: Node, out: str, operands: Sequence[str]) -> str:
        return f"row_max({operands[0]}, {out})"

    # Blocks of rows

    def _blocks(self, group: Sequence[Node]) -> None:
        """Elementwise calls over rows, block by block. What only they use needs no more memory than a block."""
        rows, columns = group[0].shape
        first = self.position[id(group[0])]
        final = first + len(group) - 1
        height = max(1, BLOCK_BYTES // (columns * max(node.dtype.itemsize for node in group)))
        scratch: dict[tuple[Any, ...], list[str]] = {}
        sliced: dict[str, str] = {}  # what is called what, within a block

        def block_of(name: str, node: Node) -> str:
            if node.shape[:1] != (rows,) or len(node.shape) != 2 or name in local:
                return name
            return sliced.setdefault(name, f"b_{name}")

        local: set[str] = set()
        calls: list[str] = []
        for index, node in enumerate(group, first):
            references = [self._reference(operand) for operand in node.operands]
            taken = node.operands[2:] if node.kind == "where" else node.operands
            if self.last[id(node)] > final:
                out = self._place_over(
                    node, index, [operand for operand in taken if self.names.get(id(operand)) not in local]
                )
            else:
                out = self._scratch(node, index, taken, scratch, local, (height, columns))
            names = [block_of(name, operand) for name, operand in zip(references, node.operands, strict=True)]
            calls += self._call(node, block_of(out, node), names)
            for operand in {id(operand.base): operand.base for operand in node.operands}.values():
                if operand.kind in ("input", "constant") or self.last.get(id(operand)) != index:
                    continue
                name = self.names[id(operand)]
                pool = scratch if name in local else self.free
                pool.setdefault((operand.shape, operand.dtype), []).append(name)
        self._write_blocks(rows, height, sliced, sorted(local), calls)

    def _scratch(
        self,
        node: Node,
        index: int,
        taken: Sequence[Node],
        scratch: dict[tuple[Any, ...], list[str]],
        local: set[str],
        shape: tuple[int, int],
    ) -> str:
        for operand in taken:
            name = self.names.get(id(operand))
            same = operand.shape == node.shape and operand.dtype == node.dtype
            if name in local and same and self.last[id(operand)] == index:
                del self.last[id(operand)]
                self.names[id(node)] = str(name)
                return str(name)
        free = scratch.get((node.shape, node.dtype))
        if free:
            name = free.pop()
        else:
            self.memories.append(self.xp.empty(shape, node.dtype))
            name = self._named("s", self.memories[-1])
        local.add(name)
        self.names[id(node)] = name
        return name

    def _write_blocks(
        self, rows: int, height: int, sliced: Mapping[str, str], local: Sequence[str], calls: Sequence[str]
    ) -> None:
        planned = [name for name in sliced if name in self.space]
        blocks = []
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            views = [self.space[name][start:stop] for name in planned]
            blocks.append((slice(start, stop), *views, *(self.space[name][: stop - start] for name in local)))
        variables = ["rows", *(sliced[name] for name in planned), *(f"b_{name}" for name in local)]
        inner = [f"{sliced[name]} = {name}[rows]" for name in sliced if name not in self.space]
        for name in local:  # the last block may be smaller
            calls = [_renamed(call, name, f"b_{name}") for call in calls]
        self.lines.append(
            f"for {', '.join(variables)}{',' if len(variables) == 1 else ''} in {self._named('blocks', blocks)}:"
        )
        self.lines += [f"    {line}" for line in (*inner, *calls)]


def _renamed(call: str, name: str, new: str) -> str:
    return re.sub(rf"\b{name}\b", new, call)


def _shape(how: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", how))


def _constant(array: Array, xp: ModuleType) -> Any:
    """As NumPy takes it fastest: 0-dimensional arrays, but numbers on a GPU."""
    return array if xp is np else array.item() if array.ndim == 0 else xp.asarray(array)


def _row_max(xp: ModuleType) -> Callable[[Array, Array], Any]:
    if xp is np:
        return partial(_reduced_rows, np.maximum.reduce)
    return lambda array, out: xp.amax(array, axis=1, keepdims=True, out=out)


def _reduced_rows(reduce: Callable[..., Any], array: Array, out: Array) -> None:
    reduce(array, 1, None, out, True)


def _needed(nodes: Sequence[Node], wanted: Sequence[Node]) -> list[Node]:
    """What the wanted values need, in order."""
    found = {id(node) for node in wanted}
    for node in reversed(nodes):
        if id(node) in found:
            found |= {id(operand) for operand in node.operands}
    return [node for node in nodes if id(node) in found]


def _last_uses(steps: Sequence[Node], wanted: Sequence[Node]) -> dict[int, int]:
    """The step that uses a value's memory last; one past the end for what is returned."""
    last: dict[int, int] = {}  # of every step: what nothing uses is no step
    for index, node in enumerate(steps):
        for operand in node.operands:
            last[id(operand.base)] = index
    return last | {id(node.base): len(steps) for node in wanted}


def _groups(steps: Sequence[Node]) -> list[list[Node]]:
    """Runs of elementwise steps of one shape; every other step alone."""
    groups: list[list[Node]] = []
    for node in steps:
        together = groups and node.elementwise and groups[-1][-1].elementwise and groups[-1][-1].shape == node.shape
        if together:
            groups[-1].append(node)
        else:
            groups.append([node])
    return groups
