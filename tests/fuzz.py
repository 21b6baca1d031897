"""Vector files, answers and hellos with bytes, numbers, keys and brackets changed: only the project's own error, in
one line. Run by `make fuzz`; the suite runs a part of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rich.progress import track

from refimpl.conformance.doors.program import heard, say
from refimpl.conformance.messages import Hello, ProgramAnswer
from refimpl.conformance.vectors import FOLDER, Case, loads
from refimpl.formats.errors import ConformanceError
from refimpl.formats.validation import checked
from refimpl.judge.submission import Submission, Unusable

PIECES = (
    b"null", b"[[", b'{"a":', b"1e999", b"-1", b'"', b"true", b"NaN", b"\\ud800", b"9" * 30, b"9" * 5000, b"0x1p+0",
    b"]", b"}",
)  # fmt: skip
HELLO = say({"type": "hello", "format": "refimpl.process/1", "name": "x", "dtypes": ["float64"], "losses": ["huber"]})
GRADIENTS = {"W1": {"shape": [2, 2], "data": [1, 2.5, "NaN", -1e-3]}, "b1": {}}
ANSWER = say({"type": "answer", "id": 1, "loss": 0.5, "gradients": GRADIENTS})


def small_file() -> str:
    """A vector file of one case."""
    data = json.loads((FOLDER / "subnormal-1.json").read_text())
    return json.dumps({**data, "cases": data["cases"][:1]})


def mutated(rng: random.Random, text: bytes) -> bytes:
    """A text with some of its bytes, numbers, keys or brackets changed."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = rng.choice(PIECES)
        elif kind == 3:
            other = rng.randrange(len(data))
            data[at:at] = data[other : other + rng.randint(1, 200)]
        else:
            del data[at + 1 :]
        data = data or bytearray(b"x")
    return bytes(data)


def read_file(text: bytes) -> bool:
    """Whether all that was read are cases."""
    return all(isinstance(case, Case) for case in loads(text).cases)


def read_hello(text: bytes) -> bool:
    """Whether a hello was read."""
    return bool(checked(Hello, heard(text, "the hello"), ConformanceError, "the hello").name)


def read_answer(text: bytes) -> bool:
    """Whether all that was read can be judged, or is refused by itself."""
    message = checked(ProgramAnswer, heard(text, "the answer"), ConformanceError, "the answer")
    found: Submission = message.submission("float64")
    values: list[Any] = [*found.gradients.values(), *(() if found.loss is None else (found.loss,))]
    return all(isinstance(value, np.ndarray | Unusable) for value in values)


READERS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("file", read_file), ("hello", read_hello), ("answer", read_answer),
)  # fmt: skip


def outcome(seed: int, text: str) -> str:
    """What went wrong with three mutated texts, or ""."""
    wrong = []
    for (kind, reader), original in zip(READERS, (text.encode(), HELLO, ANSWER), strict=True):
        given = mutated(random.Random(f"{seed} {kind}"), original)
        try:
            if not reader(given):
                wrong.append(f"{seed}: {kind}: was read as something else")
        except ConformanceError as error:
            if len(str(error).splitlines()) != 1:
                wrong.append(f"{seed}: {kind}: many lines: {error!r}")
        except Exception as error:  # what the fuzzing is for
            wrong.append(f"{seed}: {kind}: {type(error).__name__}: {error!r}")
    return "; ".join(wrong)


def main() -> None:
    """Fuzz, with a progress bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.imap_unordered(partial(outcome, text=small_file()), seeds, chunksize=200)
        wrong = [text for text in track(found, "fuzzing", total=options.count) if text]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{3 * options.count:,} texts: {len(wrong)} misread; largest process {peak:.0f} MB")
    print(*wrong[:20], sep="\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
