"""The process in which a document is read. Started by `sandbox.run`, never imported by others.

Runs as a script with no site packages and an empty environment. Its one argument is JSON. Writes
one line of JSON and then the result's bytes to the descriptor it got as standard output.
"""

import json
import os
import signal
import sys

# What the standard library imports only when it is used, which is too late here.
LATE_IMPORTS = (
    *("bisect", "heapq", "linecache", "tokenize", "traceback", "unicodedata"),
    *("encodings.ascii", "encodings.cp1252", "encodings.cp437", "encodings.latin_1"),
    *("encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_8_sig"),
)

OUT_OF_MEMORY = b'{"unreadable": "memory", "details": {}}\n'  # made before memory runs out


def main() -> None:
    job = json.loads(sys.argv[1])
    sys.path[:0] = job["import_from"]
    result = os.dup(1)
    os.dup2(2, 1)  # what a library prints goes to the log, not into the result

    from kb.extraction import confinement
    from kb.extraction.limits import Limits
    from kb.extraction.unreadable import Unreadable

    limits = Limits(**job["limits"])
    confinement.die_with_parent(job["parent"])
    confinement.limit(limits.cpu_s, limits.memory_bytes)
    function = _import(job["function"])
    for module in LATE_IMPORTS:
        __import__(module)
    missing = confinement.lock(job["scratch"])
    confinement.die_with_parent(job["parent"])
    signal.alarm(limits.wall_s + 10)  # should nobody be left to watch the clock
    os.nice(5)  # pages and searches go first

    with open(job["file"], "rb") as file, open(result, "wb") as out:
        try:
            body = function(file, limits=limits, **job["options"])
        except Unreadable as error:
            answer = {"unreadable": error.code, "details": error.details, "missing": missing}
            out.write(json.dumps(answer).encode() + b"\n")
        except MemoryError:
            out.write(OUT_OF_MEMORY)
        else:
            header = {"length": len(body), "missing": missing}
            out.write(json.dumps(header).encode() + b"\n")
            out.write(body)


def _import(name: str):  # type: ignore[no-untyped-def]
    """Import "package.module:function" while the disk can still be read."""
    from importlib import import_module

    module, function = name.split(":")
    return getattr(import_module(module), function)


if __name__ == "__main__":
    main()
