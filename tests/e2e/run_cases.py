"""Runs every case of a folder against the gateway that the environment names.

Runs under a Python of the client's own; prints one JSON line for each case.
"""

import inspect
import json
import sys
import traceback
from importlib import import_module


def main() -> None:
    sys.path[0] = sys.argv[1]
    cases = import_module("cases")
    for name, case in inspect.getmembers(cases, inspect.isfunction):
        if case.__module__ != cases.__name__ or name.startswith("_"):
            continue
        failure = None
        try:
            case()
        except Exception:  # noqa: BLE001  whatever it is, it is this case's result
            failure = traceback.format_exc()
        print(json.dumps({"name": name, "failure": failure}), flush=True)


if __name__ == "__main__":
    main()
