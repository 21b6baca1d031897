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
    """One call: the function, the arrays that it reads and the one it writes."""

    name: str
    reads: list[Any]
    writes: Any
    where: bool = False  # half of what is written was written by the call before

    @property
    def elementwise(self) -> bool:
        return self.name not in REDUCING


@dataclass
class Program:
    """The calls of a plan in order."""

    plan: Plan
    arrays: Mapping[str, Any]
    out: Mapping[str, Any]
    calls: list[Call] = field(default_factory=list)
    first: dict[int, int] = field(default_factory=dict)  # when a memory of the plan is written first
    kinds: dict[int, Any] = field(default_factory=dict)  # what may stand for what

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
            self._note(line)
        assert isinstance(self.result, ast.Return)
        self.returned = self._array(self.result.value)
        self.foreign = {id(memory(array)) for array in (*self.arrays.values(), *self.out.values())}
        for time, call in enumerate(self.calls):
            whole = memory(call.writes)
            if id(whole) not in self.foreign and id(whole) not in self.first:
                self.first[id(whole)] = time
                self.kinds[id(whole)] = (whole.shape, whole.dtype)

    def called(self, arrays: Sequence[Any]) -> list[str]:
        """The names of arrays that the plan holds; "" for the others."""
        names = {id(array): name for name, array in self.plan.bind.__globals__.items()}
        return [names.get(id(array), "") for array in arrays]

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

    def _note(self, line: ast.stmt) -> None:
        assert isinstance(line, ast.Expr)
        assert isinstance(line.value, ast.Call)
        call = line.value
        assert isinstance(call.func, ast.Name)
        name, keywords = call.func.id, {keyword.arg: keyword.value for keyword in call.keywords}
        arguments = [self._array(argument) for argument in call.args if not isinstance(argument, ast.Constant)]
        if name == "copyto":
            condition = [self._array(keywords["where"])] if "where" in keywords else []
            self.calls.append(Call(name, [arguments[1], *condition], arguments[0], bool(condition)))
            return
        if "out" in keywords:
            arguments.append(self._array(keywords["out"]))
        self.calls.append(Call(name, arguments[:-1], arguments[-1]))

    def _array(self, node: ast.expr | None) -> Any:
        assert isinstance(node, ast.Name)
        return self.known[node.id]


def memory(array: Any) -> Any:
    """The array whose memory it is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def look(array: Any) -> tuple[Any, ...]:
    """How an array looks at its memory."""
    return (*array.shape, *(array.strides if array.ndim > 1 and 1 not in array.shape else ()))
