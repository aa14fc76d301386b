"""One table of all bars of speed: what was measured, what it must reach, and whether it does.

Reads the result files that the other scripts wrote; a script that was not run is named as missing.

    python benchmarks/summary.py [--out DIR]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness import parse, print_table, write_results

SCRIPTS = (
    "rollout", "density", "gradient", "training_step", "effective_samples", "efficiency", "scaling", "speculative",
    "posterior_predictive", "hierarchical_fit", "formula_recovery", "hierarchical_particles", "hssm_end_to_end",
    "compilations", "distinct_inputs", "compiler_options", "missing_history", "seeds",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, print and write."""
    options = parse(__doc__, arguments)
    bars: list[dict[str, Any]] = []
    machines = set()
    for script in SCRIPTS:
        path = options.out / f"{script}.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        missing = [{"what": f"{script}.py: not measured", "value": None, "bar": "", "met": None}]
        bars += record.get("results", {}).get("bars", missing)
        if record:
            machines.add(f"{record['hardware']['cores']} cores of {record['hardware']['cpu']}, {record['date'][:10]}")
    rows = [[x[key] for key in ("what", "value", "bar", "met")] for x in bars]
    print_table("Speed", ["what", "measured", "bar", "met"], rows)
    print(f"measured on {'; '.join(sorted(machines)) or 'no machine'}")
    write_results("speed", {"bars": bars}, options.out)


if __name__ == "__main__":
    main()
