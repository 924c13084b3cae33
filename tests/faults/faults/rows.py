"""The list of rows, and the table of what was seen.

Invariants: a row has a site of its own; whatever a row does, at its end no daemon has ended by itself or panicked.
"""

import sys
import time
import traceback
from pathlib import Path

from .site import Broken, Missing, Site

ROOT = Path(__file__).resolve().parents[3]
ROWS = {}


def row(done, holds):
    """Makes a function a row of the table: what is done, and what must hold. It returns what was seen."""

    def register(function):
        ROWS[function.__name__.replace("_", "-")] = (function, done, holds)
        return function

    return register


def main(usage, arguments):
    from . import cables, clocks, disks, processes, strangers  # noqa: F401: they have the rows

    program, chosen = ROOT / "target/release/oc-discovery", []
    words = iter(arguments)
    for word in words:
        if word in ("-h", "--help"):
            print(usage)
            return 0
        if word == "--list":
            print("\n".join(f"{name}: {done}" for name, (_, done, _) in ROWS.items()))
            return 0
        if word == "--program":
            program = Path(next(words, "")).resolve()
        elif word in ROWS:
            chosen.append(word)
        else:
            print(f"unknown row {word!r}; --list has them", file=sys.stderr)
            return 2
    if not program.is_file():
        print(f"there is no program {program}: build it with cargo build --release", file=sys.stderr)
        return 2
    return run(program, chosen or list(ROWS))


def run(program, chosen):
    failed = skipped = 0
    print("| row | what is done | what must hold | what was seen | |\n|---|---|---|---|---|", flush=True)
    for name in chosen:
        function, done, holds = ROWS[name]
        begin, word = time.monotonic(), "holds"
        site = Site(program, name)
        try:
            with site:
                seen = function(site)
                site.all_live()
        except Missing as missing:
            seen, word, skipped = f"{missing}", "skipped", skipped + 1
        except Broken as broken:
            seen, word, failed = f"{broken}", "FAILED", failed + 1
            print(site.words, file=sys.stderr)
        except Exception:
            seen, word, failed = "the row itself failed", "FAILED", failed + 1
            traceback.print_exc()
        print(f"| `{name}` | {done} | {holds} | {seen} ({time.monotonic() - begin:.0f} s) | {word} |", flush=True)
    print(f"\n{len(chosen) - failed - skipped} rows hold, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
