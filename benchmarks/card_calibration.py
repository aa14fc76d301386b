"""What a card says of calibration: of the likelihood and of posteriors, from what `calibration.py` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from card_words import plain

from ppl_buffer.network.card import markdown, wrapped

_PREFERENCE = "preference for larger "
_MET = {True: "yes", False: "**no**"}


@dataclass(frozen=True)
class Calibration:
    """What a card says of calibration.

    Attributes:
        section: of the card, Markdown.
        figures: by name.
        sentence: for the card's beginning; empty = not measured.
        words: for the table of all networks.
    """

    section: str
    figures: dict[str, float]
    sentence: str
    words: str


def calibration(name: str, measurement: Mapping[str, Any], trained: str) -> Calibration:
    """What a card says of calibration.

    Args:
        name: of the network.
        measurement: what `calibration.py` wrote; empty = it was not run.
        trained: when the weights were, as an ISO date.
    """
    if not measurement:
        return Calibration("Not measured.", {}, "", "not measured")
    results = measurement["results"]
    likelihood = results["likelihood"]
    ranked = [row for row in results["posterior"] if row["mean_rank"] is not None]
    wrong = [_named(row["what"]) for row in likelihood if not row["passed"]]
    off = [f"`{row['quantity']}`" for row in ranked if not row["passed"]]
    thin = results.get("thin")
    command = f"calibration.py --model {name} --sets {results['sets']}{f' --thin {thin}' if thin else ''}"
    earlier = measurement["date"] < trained
    about = f"""By `benchmarks/{command}` ({measurement["date"][:10]}{", of earlier weights" * earlier}):
{results["sets"]} data sets of {results["trials"]} trials, simulated at parameters from the prior. Bands are
simultaneous: in {percent(results["level"])} of such checks a network that is right has everything inside, of the
likelihood and again of the posterior."""
    of_likelihood = _verdict("", f"{len(likelihood)} comparisons of the likelihood", wrong)
    of_posterior = _verdict("the ranks of ", f"{len(ranked)} quantities of the posterior", off)
    section = "\n\n".join(
        [
            wrapped(about),
            wrapped(f"**Likelihood, all parameters given: {of_likelihood}.** {_of_likelihood(likelihood)}"),
            _outcomes(likelihood),
            wrapped(f"**Posterior: {of_posterior}.** {_of_posterior(results)}"),
            _ranks(ranked),
        ]
    )
    heading = f"calibration{', of earlier weights' * earlier}"
    figures = {
        f"{heading}: comparisons of the likelihood outside their band, of {len(likelihood)}": float(len(wrong)),
        f"{heading}: quantities of the posterior with ranks outside their band, of {len(ranked)}": float(len(off)),
    }
    words = [*(f"likelihood: {x}" for x in wrong), *(f"ranks of {x}" for x in off)]
    outside = f"outside {'its band' if len(words) == 1 else 'their bands'}: {', '.join(words)}"
    aside = " (of earlier weights)" * earlier
    sentence = f"Calibration{aside}: {of_likelihood}; {of_posterior}."
    return Calibration(section, figures, sentence, f"{outside if words else 'inside all bands'}{aside}")


def percent(share: float, digits: int = 0) -> str:
    """A share as a card writes it."""
    return f"{100 * share:.{digits}f} %"


def _verdict(of: str, what: str, outside: Sequence[str]) -> str:
    """How many lie inside their bands, in words, without a full stop."""
    if not outside:
        return f"{of}all {what} lie inside their bands"
    return f"{of}{len(outside)} of {what} lie{'s' * (len(outside) == 1 and not of)} outside: {', '.join(outside)}"


def _named(what: str) -> str:
    """A comparison, in words."""
    if what.startswith(_PREFERENCE):
        return f"how much the likelihood prefers a larger `{what.removeprefix(_PREFERENCE)}`"
    return what


def _of_likelihood(rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparisons of a likelihood by their kinds, in sentences."""
    sentences = []
    kinds = {kind: [row for row in rows if row["comparison"] == kind] for kind in ("coverage", "rollouts", "error")}
    for row in kinds["error"]:
        sentences.append(
            f"It diverges from the exact likelihood by {plain(row['nats'], 2)} nats a trial on these data sets "
            f"({row['what'].removeprefix('above ')} would be too much)."
        )
    if kinds["coverage"]:
        shares = [row["coverage_90"] for row in kinds["coverage"]]
        sentences.append(
            f"In each fifth of each parameter's range {percent(min(shares))} to {percent(max(shares))} of the outcomes "
            f"lie in the network's central 90 % interval ({len(shares)} comparisons)."
        )
    if kinds["rollouts"]:
        most = max(kinds["rollouts"], key=lambda row: abs(row["effect"]))
        sentences.append(
            f"Data sets that the network draws are compared with the simulator's by {len(kinds['rollouts'])} "
            f"statistics; the greatest difference of means is {plain(abs(most['effect']), 2)} standard deviations "
            f"({_named(most['what'])})."
        )
    return " ".join([*sentences, "Of all trials together:"])


def _outcomes(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row an outcome: how many lie in central intervals."""
    cells = [
        [f"`{row['what']}`", percent(row["coverage_50"], 1), percent(row["coverage_90"], 1), _MET[row["passed"]]]
        for row in rows if row["comparison"] == "PIT"
    ]  # fmt: skip
    return markdown(("outcome", "in its central 50 % interval", "in its central 90 % interval", "inside"), cells)


def _of_posterior(results: Mapping[str, Any]) -> str:
    """What the ranks are, in sentences."""
    chance = 1 / np.sqrt(12 * results["sets"])
    return f"""Simulation-based calibration: the rank of the true value among {results["draws"]} posterior draws by
NUTS, a chain for each data set, is uniform where likelihood and sampler are right. As a share, its mean is then 0.5 (by
chance off by about {plain(chance, 1)}); its standard deviation, over that of uniform ranks, is 1: above where
posteriors are too narrow, below where they are too wide. Ranks of the log likelihood see what those of single
parameters miss. "Told by the data" is the part of the prior variance that the data take away.
{percent(results["divergences"], 1)} of the transitions diverged."""


def _ranks(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a quantity."""
    cells = [
        [f"`{row['quantity']}`", f"{row['mean_rank']:.2f}", f"{row['rank_spread']:.2f}",
         "" if row["contraction"] is None else percent(row["contraction"]), f"{row['effective_draws']:.0f}",
         _MET[row["passed"]]]
        for row in rows
    ]  # fmt: skip
    head = ("quantity", "mean rank", "spread of ranks", "told by the data", "effective draws", "inside")
    return markdown(head, cells)
