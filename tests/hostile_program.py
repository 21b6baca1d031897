"""A program that answers refimpl.process/1 rightly, or misbehaves in the way that its argument names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from refimpl import NetworkSpec
from refimpl_numpy import backend

AFTER = 3  # cases answered rightly before the misbehaviour


def tensor(array: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "data": array.ravel().tolist()}


def answer(message: dict[str, Any]) -> dict[str, Any]:
    def read(item: dict[str, Any], labels: bool = False) -> Any:
        return np.array(item["data"], dtype=np.int64 if labels else np.float64).reshape(item["shape"])

    spec = NetworkSpec.from_dict(message["network"])
    labels = len(message["y"]["shape"]) == 1
    params = {name: read(item) for name, item in message["parameters"].items()}
    run = backend.gradient_function(spec, dtype="float64", device="cpu")
    loss, grads = run(params, read(message["x"]), read(message["y"], labels))
    gradients = {name: tensor(grad) for name, grad in grads.items()}
    return {"type": "answer", "id": message["id"], "loss": loss, "gradients": gradients}


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def sleep_on() -> None:
    while True:
        time.sleep(60)


def misbehave(how: str, right: dict[str, Any]) -> None:
    first = next(iter(right["gradients"]))
    edits: dict[str, Any] = {
        "wrong number": lambda: right["gradients"][first]["data"].__setitem__(0, 123.0),
        "wrong shape": lambda: right["gradients"][first].update(shape=[1, len(right["gradients"][first]["data"])]),
        "no array": lambda: right["gradients"].update({first: "much"}),
        "no loss": lambda: right.pop("loss"),
        "wrong id": lambda: right.update(id=right["id"] + 1),
        "wrong type": lambda: right.update(type="reply"),
        "error": lambda: right.update(type="error", message="I give\nup"),
        "unsupported": lambda: right.update(type="unsupported", reason="not today\x1b"),
    }
    if how in edits:
        edits[how]()
        write(json.dumps(right) + "\n")
    elif how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how.startswith("exit "):
        os._exit(int(how.removeprefix("exit ")))
    elif how == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("hangs", file=sys.stderr, flush=True)
        sys.stdin.readline()
        print("stays after bye", file=sys.stderr, flush=True)
        sleep_on()
    elif how in ("child", "child in a session of its own"):
        sleep = [sys.executable, "-c", "import time; time.sleep(600)", os.environ["REFIMPL_TEST_CHILD"]]
        subprocess.Popen(sleep, start_new_session=how != "child")
        sleep_on()
    elif how == "closes early":
        os.close(1)
        sleep_on()
    elif how == "garbage":
        write("Segmentation fault (core dumped)\n")
    elif how == "1 GB":
        for _ in range(1024):
            write("x" * 2**20)
    elif how == "1 GB of lines":
        write(json.dumps(right) + "\n" * 2**20)  # one write: the first empty lines come with the answer
        for _ in range(1023):
            write("\n" * 2**20)
    elif how == "deep":
        write("[" * 200_000 + "\n")
    elif how == "unasked":
        write(json.dumps(right) + "\n" + json.dumps(right) + "\n")
    else:
        raise SystemExit(f"unknown misbehaviour {how!r}")


def split(how: str, text: str) -> bool:
    """Right answers, oddly cut."""
    if how == "byte by byte":
        for character in text + "\n":
            write(character)
    elif how == "carriage returns":
        write(text + "\r\n")
    elif how == "pauses":
        half = len(text) // 2
        write(text[:half])
        time.sleep(0.05)
        write(text[half:] + "\n")
    else:
        return False
    return True


def main() -> None:
    how = sys.argv[1]
    if how == "no hello":
        write("hi there\n")
        sleep_on()
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "hello":
            write(
                json.dumps({"type": "hello", "format": "refimpl.process/1", "name": how, "dtypes": ["float64"]}) + "\n"
            )
        elif message["type"] == "bye":
            if how == "stays after bye":
                sleep_on()
            return
        else:
            right = answer(message)
            if how == "none" or (message["id"] <= AFTER and not how.startswith("every")):
                write(json.dumps(right) + "\n")
            elif not split(how, json.dumps(right)):
                misbehave(how.removeprefix("every "), right)


if __name__ == "__main__":
    main()
