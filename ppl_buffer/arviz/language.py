"""The probabilistic programming language that a fit was made in."""

from __future__ import annotations

from typing import Any

from ppl_buffer.checks import check_choice
from ppl_buffer.ppl.trace import Language

LANGUAGES = ("numpyro", "pyro")


def language_of(name: str) -> Language:
    """What a language offers to a conversion. Only this language has to be installed.

    Raises:
        ValueError: if it is none of `LANGUAGES`.
    """
    if check_choice("language", name, LANGUAGES) == "numpyro":
        import ppl_buffer.numpyro.trace as numpyro_trace

        return numpyro_trace
    import ppl_buffer.pyro.trace as pyro_trace

    return pyro_trace


def language_name(argument: str, fit: Any) -> str:
    """Which of `LANGUAGES` an object is of.

    Raises:
        ValueError: if it is of none.
    """
    name = type(fit).__module__.split(".")[0]
    if name not in LANGUAGES:
        raise ValueError(
            f"{argument}: expected an {argument.upper()} object of NumPyro or Pyro, got {type(fit).__name__}; draws "
            f"from elsewhere can be given to from_samples"
        )
    return name
