"""Writes docs/metrics.md from `shared/metrics.py`; with `--check`, fails where the page differs."""

import sys
from collections.abc import Iterator
from pathlib import Path

from shared.metrics import Metrics
from shared.tally import Family
from shared.valkey.process_metrics import KEPT_SECONDS, PUBLISH_SECONDS, STORE_GAUGES

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"

HEAD = f"""# Metrics

`GET /metrics` of any API process answers for the whole deployment, in Prometheus text. Each process
publishes its samples in Valkey every {PUBLISH_SECONDS:g} s; they are forgotten {KEPT_SECONDS} s after the last time. To the
labels below each sample adds `role` (`api`, `worker`, `metering`, `background`) and `process`, the
id of the process. Metrics marked *of the stores* are read from Valkey by the scrape itself and carry
neither. While Valkey is away, a scrape shows the process that is asked, and no other.

Scrape one address; to scrape each API process as well would count everything several times.

Label values come from the catalog, from route templates and from tables of our own; a model that the
catalog does not list appears as `<provider>:<model>`. Histograms are in seconds.

| metric | type | labels | what it says |
|---|---|---|---|
"""


def rows() -> Iterator[str]:
    for metric in vars(Metrics()).values():
        if isinstance(metric, Family):
            (family,) = metric.describe()
            # The library takes the ending off a counter's name and puts it back on its samples.
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric.label_names)
            where = " *Of the stores.*" if family.name in STORE_GAUGES else ""
            yield f"| `{name}` | {family.type} | {labels} | {family.documentation}{where} |\n"


def page() -> str:
    return HEAD + "".join(rows())


def main() -> int:
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text() == page()
        if not same:
            sys.stderr.write("docs/metrics.md differs from shared/metrics.py: run `make docs`\n")
        return 0 if same else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
