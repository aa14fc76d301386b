"""From a table of trials to a report: the hierarchical fit, its report, the command line.

``fit(net, trials)`` samples a hierarchical model and checks it; ``write_report(fit, folder, title=...)`` writes what
came of it as one HTML file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ppl_buffer.extras import needs

if TYPE_CHECKING:
    from ppl_buffer.workflow.fitting import Fit, fit
    from ppl_buffer.workflow.report import write_report

__all__ = ["Fit", "fit", "write_report"]

# Found when first asked for: they need NumPyro, and the command line sets its number of devices before JAX is used.
_LAZY = {
    "Fit": "ppl_buffer.workflow.fitting",
    "fit": "ppl_buffer.workflow.fitting",
    "write_report": "ppl_buffer.workflow.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs(f"{__name__}.{name}", "numpyro"):
        module = import_module(_LAZY[name])
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
