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
from functools import partial

from rich.progress import track

from refimpl.conformance.messages import heard, read_answer, read_hello, say
from refimpl.conformance.vectors import FOLDER, Case, loads
from refimpl.formats.errors import ConformanceError

PIECES = (
    b"null", b"[[", b'{"a":', b"1e999", b"-1", b'"', b"true", b"NaN", b"\\ud800", b"9" * 30, b"0x1p+0", b"]", b"}",
)  # fmt: skip


def small_file() -> str:
    """A vector file of one case."""
    data = json.loads((FOLDER / "subnormal-1.json").read_text())
    return json.dumps({**data, "cases": data["cases"][:1]})


HELLO = say({"type": "hello", "format": "refimpl.process/1", "name": "x", "dtypes": ["float64"], "losses": ["huber"]})
ANSWER = say({"loss": 0.5, "gradients": {"W1": {"shape": [2, 2], "data": [1, 2.5, "NaN", -1e-3]}, "b1": {}}})


def mutated(seed: int, text: bytes) -> bytes:
    """A text with some of its bytes, numbers, keys or brackets changed."""
    rng = random.Random(seed)
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


def outcome(seed: int, text: str) -> str:
    """What becomes of three mutated texts: "read", "refused", or what went wrong."""
    found = set()
    for kind, reader in (("file", _file), ("hello", read_hello), ("answer", _answer)):
        given = mutated(seed, {"file": text.encode(), "hello": HELLO, "answer": ANSWER}[kind])
        try:
            reader(given)
            found.add("read")
        except ConformanceError as error:
            found.add("refused" if len(str(error).splitlines()) == 1 else f"{seed}: {kind}: many lines: {error!r}")
        except Exception as error:  # what the fuzzing is for
            found.add(f"{seed}: {kind}: {type(error).__name__}: {error!r}")
    return "; ".join(sorted(found - {"read", "refused"}))


def _file(text: bytes) -> None:
    if not all(isinstance(case, Case) for case in loads(text)[0]):
        raise TypeError("not a case")


def _answer(text: bytes) -> None:
    read_answer(heard(text, "the answer"), "float64")


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
