"""sdist → wheel → an empty environment: what a user installs is what the repository holds. Run by `make wheel-check`.

In the empty environment the numpy backend works and asking for torch says what to install; in a second one, which
sees this environment's frameworks, every registered backend loads from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOAD_ALL = """
import refimpl, refimpl.backend as b
assert "site-packages" in refimpl.__file__ and ROOT not in refimpl.__file__, refimpl.__file__
names = list(b.available())
assert names == ["numpy", "jax", "torch"], names
for name in names:
    backend = b.load(name)
    assert backend.name == name
    module = __import__(type(backend).__module__)
    assert ROOT not in module.__file__, module.__file__
print("loaded from the wheel:", ", ".join(names))
from refimpl.cli import app
app(["lesson", "lesson.html"], standalone_mode=False)
"""


def run(*command: str | Path, cwd: Path, code: int = 0, **env: str) -> str:
    """Run a command, demand its exit code, and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, text=True, capture_output=True, env={**os.environ, **env}, check=False
    )
    if done.returncode != code:
        sys.exit(
            f"{' '.join(map(str, command))}: exit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout + done.stderr


def main() -> None:
    """Build, install, look."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", home / "dist", ROOT, cwd=home)
        (wheel,) = (home / "dist").glob("*.whl")
        empty = home / "empty"
        venv.create(empty, with_pip=True)
        run(
            empty / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            ROOT / "constraints.txt",
            wheel,
            cwd=home,
        )
        print(run(empty / "bin/refimpl", "check", "--backend", "numpy", cwd=home))
        hint = run(empty / "bin/refimpl", "check", "--backend", "torch", cwd=home, code=2)
        if "pip install 'refimpl[torch]'" not in hint or len(hint.splitlines()) != 1:
            sys.exit(f"asking for torch without torch says:\n{hint}")
        print(hint.strip())
        print(run(empty / "bin/refimpl", "explain", "W2[2,2]", "--backend", "numpy", cwd=home).splitlines()[0])
        print(run(empty / "bin/refimpl", "exercise", "new", "exercises", cwd=home).splitlines()[-1])
        hint = run(empty / "bin/refimpl", "lesson", "lesson.html", cwd=home, code=2)
        if "pip install 'refimpl[teach]'" not in hint:
            sys.exit(f"asking for a lesson without its extra says:\n{hint}")
        load_every_backend(home, wheel)


def load_every_backend(home: Path, wheel: Path) -> None:
    """The wheel before this environment's packages, so that the frameworks are there and refimpl is the wheel's."""
    target = home / "site-packages"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
        target,
        wheel,
        cwd=home,
    )
    # -S and an explicit path: no .pth file, so the editable install cannot stand in for the wheel
    here = next(path for path in sys.path if path.endswith("site-packages"))
    program = f"ROOT = {str(ROOT)!r} + '/refimpl'\nimport sys; sys.path[:0] = [{str(target)!r}, {here!r}]\n{LOAD_ALL}"
    print(run(sys.executable, "-S", "-c", program, cwd=home))


if __name__ == "__main__":
    main()
