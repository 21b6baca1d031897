"""The programs that plans write, read again: which memory every call reads and writes, found from the program's text
and its arrays and not from how the plan was made.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refimpl_numpy.plan import Plan

REDUCING = ("dot", "row_max", "total")


@dataclass
class Call:
    """One call: the function, the arrays that it reads and the one it writes, and the loop over blocks it is in."""

    name: str
    reads: list[Any]
    writes: Any
    block: int | None
    where: bool = False  # half of what is written was written by the call before

    @property
    def elementwise(self) -> bool:
        return self.name not in REDUCING


@dataclass
class Program:
    """The calls of a plan in order, with whole arrays in the place of their blocks."""

    plan: Plan
    arrays: Mapping[str, Any]
    out: Mapping[str, Any]
    calls: list[Call] = field(default_factory=list)
    blocks: list[list[tuple[Any, ...]]] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)  # when a memory of the plan is written first
    kinds: dict[int, Any] = field(default_factory=dict)  # what may stand for what: scratch within its loop

    def __post_init__(self) -> None:
        program: Any = self.plan.bind(self.arrays, self.out)
        cells = program.__closure__ or ()
        self.known = program.__globals__ | {
            name: cell.cell_contents for name, cell in zip(program.__code__.co_freevars, cells, strict=True)
        }
        (bind,) = ast.parse(self.plan.source).body
        assert isinstance(bind, ast.FunctionDef)
        (body,) = (line for line in bind.body if isinstance(line, ast.FunctionDef))
        *lines, self.result = body.body
        for line in lines:
            if isinstance(line, ast.For):
                assert isinstance(line.iter, ast.Name)
                self.blocks.append(self.known[line.iter.id])
                for call in line.body:
                    self._note(call, len(self.blocks) - 1)
            else:
                self._note(line, None)
        assert isinstance(self.result, ast.Return)
        self.returned = self._array(self.result.value)
        self.foreign = {id(memory(array)) for array in (*self.arrays.values(), *self.out.values())}
        for time, call in enumerate(self.calls):
            whole = memory(call.writes)
            if id(whole) not in self.foreign and id(whole) not in self.first:
                self.first[id(whole)] = time
                loop = call.block if self.scratch(id(whole)) else None
                self.kinds[id(whole)] = (loop, whole.shape, whole.dtype)

    def called(self, arrays: Sequence[Any]) -> list[str]:
        """The names of arrays that the plan holds; "" for the others."""
        names = {id(array): name for name, array in self.plan.bind.__globals__.items()}
        return [names.get(id(array), "") for array in arrays]

    def scratch(self, whole: int) -> bool:
        """Whether it is memory for blocks alone."""
        return any(id(array) == whole and name[0] == "s" for name, array in self.plan.bind.__globals__.items())

    def used_until(self, whole: int, time: int) -> int:
        """When the value that a memory holds before the call of that time is read last; -1 if it is not."""
        read = -1
        for at, call in enumerate(self.calls[time:], time):
            writes = id(memory(call.writes)) == whole
            if (writes and call.where) or any(id(memory(array)) == whole for array in call.reads):
                read = at
            if writes and not call.where:
                return read
        returned = whole in self.foreign or whole == id(memory(self.returned))
        return len(self.calls) if returned else read

    def reusable(self, time: int) -> list[int]:
        """What the call could write to: memory of the kind whose value is dead or dies in this elementwise call."""
        call, found = self.calls[time], []
        kind = self.kinds[id(memory(call.writes))]
        half = call.name == "copyto" and time + 1 < len(self.calls) and self.calls[time + 1].where
        for other, begun in self.first.items():
            if begun < time and self.kinds[other] == kind:
                until = self.used_until(other, time)
                whole = any(id(array) == other for array in call.reads)  # and not a view of it
                if until < time or (until == time and call.elementwise and whole and not half):
                    found.append(other)
        return found

    def _note(self, line: ast.stmt, block: int | None) -> None:
        if isinstance(line, ast.Assign):  # b_name = name[rows]
            return
        assert isinstance(line, ast.Expr)
        assert isinstance(line.value, ast.Call)
        call = line.value
        assert isinstance(call.func, ast.Name)
        name, keywords = call.func.id, {keyword.arg: keyword.value for keyword in call.keywords}
        arguments = [self._array(argument) for argument in call.args if not isinstance(argument, ast.Constant)]
        if name == "copyto":
            condition = [self._array(keywords["where"])] if "where" in keywords else []
            self.calls.append(Call(name, [arguments[1], *condition], arguments[0], block, bool(condition)))
            return
        if "out" in keywords:
            arguments.append(self._array(keywords["out"]))
        self.calls.append(Call(name, arguments[:-1], arguments[-1], block))

    def _array(self, node: ast.expr | None) -> Any:
        assert isinstance(node, ast.Name)
        return self.known[node.id if node.id in self.known else node.id.removeprefix("b_")]


def memory(array: Any) -> Any:
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def look(array: Any) -> tuple[Any, ...]:
    """How an array looks at its memory."""
    return (*array.shape, *(array.strides if array.ndim > 1 and 1 not in array.shape else ()))
