"""Can a network be trusted: error and calibration of its likelihood and of its posteriors, and data beyond its depth.

`check_likelihood` compares the network with its simulator: no function of the history may predict fresh simulations
better, their conditional distribution functions must be uniform, and the network's own rollouts must look like them; it
states the error in nats a trial. `compare_likelihood` sets a likelihood that is known beside the network's.
`check_posterior` is simulation-based calibration over NUTS fits (Talts, Betancourt, Simpson, Vehtari & Gelman 2018,
arXiv 1804.06788). Both checks judge by the simultaneous bands of Säilynoja, Bürkner & Vehtari (2022, Statistics and
Computing 32, 32), at a level that all comparisons of a check share.

`consistency` says by how much a joint density depends on the order of exchangeable trials.

`outside` and `check_data` look at a fit to real data: parameters where the network was not trained, and data that it
would not generate.

Importing this module needs neither torch nor JAX. `check_posterior` samples with NumPyro, whatever the network's
backend.
"""

from ppl_buffer.diagnostics.bands import Uniformity, uniformity
from ppl_buffer.diagnostics.comparison import LikelihoodComparison, compare_likelihood
from ppl_buffer.diagnostics.consistency import Consistency, consistency
from ppl_buffer.diagnostics.data import DataCheck, check_data
from ppl_buffer.diagnostics.error import MeasuredError
from ppl_buffer.diagnostics.likelihood import LikelihoodCheck, check_likelihood
from ppl_buffer.diagnostics.posterior import check_posterior
from ppl_buffer.diagnostics.ranges import outside, outside_findings
from ppl_buffer.diagnostics.ranks import PosteriorCheck
from ppl_buffer.diagnostics.statistics import Statistic

__all__ = [
    "Consistency",
    "DataCheck",
    "LikelihoodCheck",
    "LikelihoodComparison",
    "MeasuredError",
    "PosteriorCheck",
    "Statistic",
    "Uniformity",
    "check_data",
    "check_likelihood",
    "check_posterior",
    "compare_likelihood",
    "consistency",
    "outside",
    "outside_findings",
    "uniformity",
]
