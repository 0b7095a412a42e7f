"""Runs every case against the gateway that the environment names; prints one JSON line for each."""

import inspect
import json
import traceback

import cases


def main() -> None:
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
