"""What a newcomer does: copy the code of each tutorial from the site and run it in an empty folder.

python docs/newcomer.py docs/tutorials [NAME ...]

The code is copied block by block, as the site shows it, and runs with the interpreter that runs this script: use one of
an environment that holds nothing but iasolve and its extra ``docs``. NAMEs choose tutorials by a part of their names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["code_blocks", "run"]


def code_blocks(tutorial: Path) -> list[str]:
    """The blocks of code that the site shows of a tutorial, each with a button to copy it."""
    _, _, rest = tutorial.read_text(encoding="utf-8").partition('"""\n')[2].partition('"""\n')
    # a block ends where the next text begins; a text is "# %%" and the comment after it
    texts_and_code = re.split(r"^# %%.*\n((?:#.*\n)*)", rest, flags=re.MULTILINE)
    return [code.strip("\n") for code in texts_and_code[::2] if code.strip()]


def run(tutorial: Path) -> subprocess.CompletedProcess[str]:
    """Run a tutorial's blocks, one after the other, in an empty folder and without what the source tree offers."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "IASOLVE"))}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "pasted.py"
        script.write_text("\n\n".join(code_blocks(tutorial)) + "\n", encoding="utf-8")
        return subprocess.run(
            [sys.executable, script.name],
            cwd=folder,
            env={**environment, "MPLBACKEND": "agg"},
            capture_output=True,
            text=True,
        )


def main(folder: Path, names: list[str]) -> int:
    """Run tutorials; 0 if all of them end well."""
    tutorials = [p for p in sorted(folder.glob("tutorial_*.py")) if not names or any(name in p.name for name in names)]
    failed = []
    for tutorial in tutorials:
        begun = time.perf_counter()
        done = run(tutorial)
        print(f"{tutorial.name}: {'done' if done.returncode == 0 else 'FAILED'}, {time.perf_counter() - begun:.0f} s")
        if done.returncode != 0:
            failed.append(tutorial.name)
            print("\n".join(done.stderr.splitlines()[-15:]))
    if not tutorials:
        print(f"{folder} holds no tutorial")
    return 0 if tutorials and not failed else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
