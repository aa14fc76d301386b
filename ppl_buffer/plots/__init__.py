"""Plots that scientists of choices and response times look at, and the statistics behind them.

Every ``plot_...`` lays data over what a fitted model generates: 50 % and 90 % bands of the same statistic over data
sets drawn from the posterior. Statistics are functions of their own, of arrays alone, so that a number can be had
without a picture. Statistics of one trial given earlier ones (`repetition`, `post_error_slowing`, `autocorrelation`,
`learning_curve`) are those that a model of independent trials cannot get right.

Data are a dict name -> (subjects, trials), or a `ppl_buffer.datasets.TrialData`; what a model generates is a dict name
-> (draws, subjects, trials), such as `ppl_buffer.posterior_predictive` makes; NaN where there is no trial. Names that
the generated data lack (a condition) are taken from the data. Categories of a `TrialData` are called by the words of
its table, where it had words, others by their numbers. What `ppl_buffer.arviz.from_mcmc` returns holds both, and may
stand for the data alone: its posterior_predictive group is then what the model generates. Figures are made without
pyplot: ``axes.figure.savefig(...)``. `Evidence.plot` draws model evidence against the number of orders,
``check.plot()`` of `ppl_buffer.diagnostics` calibration.
"""

from ppl_buffer.plots.arguments import columns
from ppl_buffer.plots.drawing import bands
from ppl_buffer.plots.lags import plot_autocorrelation, plot_post_error_slowing, plot_repetition
from ppl_buffer.plots.learning import plot_learning_curves
from ppl_buffer.plots.pairs import plot_pairs
from ppl_buffer.plots.parameter_recovery import Recovery, plot_recovery, recovery
from ppl_buffer.plots.response_times import plot_conditional_accuracy, plot_quantile_probability, plot_response_times
from ppl_buffer.plots.statistics import (
    QUANTILES,
    autocorrelation,
    conditional_accuracy,
    defective_density,
    learning_curve,
    post_error_slowing,
    quantile_probability,
    quantiles,
    repetition,
)
from ppl_buffer.plots.subjects import plot_subjects
from ppl_buffer.plots.traces import plot_traces

__all__ = [
    "QUANTILES",
    "Recovery",
    "autocorrelation",
    "bands",
    "columns",
    "conditional_accuracy",
    "defective_density",
    "learning_curve",
    "plot_autocorrelation",
    "plot_conditional_accuracy",
    "plot_learning_curves",
    "plot_pairs",
    "plot_post_error_slowing",
    "plot_quantile_probability",
    "plot_recovery",
    "plot_repetition",
    "plot_response_times",
    "plot_subjects",
    "plot_traces",
    "post_error_slowing",
    "quantile_probability",
    "quantiles",
    "recovery",
    "repetition",
]
