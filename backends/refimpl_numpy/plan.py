"""NumPy calls planned once and made again without allocating: how the hand-derived backend gets fast.

`Plan` runs a function of arrays once over `Traced` arrays, which note every NumPy call, and writes the noted calls out
as a straight-line program in which every call has its `out=`: `Plan.source` is that program, for anyone to read. A
value is computed once however often it is asked for, and memory is used again as soon as its value is dead.

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
        for index, node in enumerate(self.steps):
            self._step(index, node)
        self.lines += [f"copyto(out_{name}, {self._reference(self.outputs[name])})" for name in copied]
        self.lines.append(f"return {self._reference(self.scalar)}")
        head = [f"{name} = {value}" for name, value in self.head.items()]
        program = ["def program():", *(f"    {line}" for line in self.lines)]
        return "\n    ".join(["def bind(arrays, out):", *head, *program, "return program"]) + "\n"

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

    def _step(self, index: int, node: Node) -> None:
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
