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


def sleep_on(*ignored: Any) -> None:
    while True:
        time.sleep(60)


def misbehave(how: str, right: dict[str, Any]) -> None:
    first = next(iter(right["gradients"]))
    edits: dict[str, Any] = {
        "wrong shape": lambda r: r["gradients"][first].update(shape=[1, len(r["gradients"][first]["data"])]),
        "data too short": lambda r: r["gradients"][first]["data"].pop(),
        "no tensor": lambda r: r["gradients"].update({first: r["gradients"][first]["data"]}),
        "missing key": lambda r: r["gradients"].pop(first),
        "extra key": lambda r: r["gradients"].update(W99={"shape": [1], "data": [0.0]}),
        "NaN": lambda r: r["gradients"][first]["data"].__setitem__(0, float("nan")),
        "named NaN": lambda r: r["gradients"][first]["data"].__setitem__(0, "NaN"),
        "strings": lambda r: r["gradients"][first]["data"].__setitem__(0, "0.5"),
        "booleans": lambda r: r["gradients"][first]["data"].__setitem__(0, True),
        "no loss": lambda r: r.pop("loss"),
        "loss a string": lambda r: r.update(loss="much"),
        "gradients a list": lambda r: r.update(gradients=[]),
        "wrong id": lambda r: r.update(id=r["id"] + 1),
        "out of order": lambda r: r.update(id=r["id"] - 1),
        "wrong type": lambda r: r.update(type="reply"),
        "error": lambda r: r.update(type="error", message="I give\nup"),
        "wrong number": lambda r: r["gradients"][first]["data"].__setitem__(0, 123.0),
    }
    if how in edits:
        edits[how](right)
        write(json.dumps(right) + "\n")
    elif how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exit 3":
        os._exit(3)
    elif how == "hang":
        sleep_on()
    elif how == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep_on()
    elif how in ("grandchild", "daemon"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=how == "daemon")
        sleep_on()
    elif how == "stranger":  # neither our group nor our environment, and its parent gone
        sleep = "import time; time.sleep(600)"
        middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True)"
        for _ in range(3):
            subprocess.run([sys.executable, "-c", middle], env={}, start_new_session=True, check=True)
        sleep_on()
    elif how == "orphans":  # while it is being ended, more of them
        code = (
            "import os, time\nwhile True:\n    if os.fork():\n        time.sleep(0.002); os._exit(0)\n    os.setsid()"
        )
        subprocess.Popen([sys.executable, "-c", code], env={}, start_new_session=True)
        sleep_on()
    elif how == "closes early":
        sys.stdout.flush()
        os.close(1)
        sleep_on()
    elif how == "garbage":
        write("Segmentation fault (core dumped)\n")
    elif how == "not an object":
        write("[1, 2, 3]\n")
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
