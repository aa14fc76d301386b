"""Views of a converted fit, for those functions of ArviZ that look for their numbers under other names."""

from __future__ import annotations

from typing import Any

from ppl_buffer.arviz.versions import container, groups_of


def one_step_ahead(data: Any) -> Any:
    """A view of a result for checks of predictions one trial ahead: `az.loo_pit`, `az.plot_loo_pit`, `az.plot_ppc`.

    Its posterior_predictive are the draws of each trial given the *observed* trials before it, and its log_likelihood
    has a variable for each outcome, as `az.loo_pit` wants (with several outcomes all are the whole trial's: the trial
    is removed, not one outcome of it).

    Args:
        data: what `from_mcmc` or `from_svi` returned.

    Raises:
        ValueError: if it has no group one_step_ahead.
    """
    groups = groups_of(data)
    if "one_step_ahead" not in groups:
        raise ValueError(f"data: expected a group one_step_ahead, as from_mcmc makes it, got {list(groups)}")
    steps, scores = groups["one_step_ahead"], groups["log_likelihood"]
    groups["log_likelihood"] = scores.drop_vars(list(scores.data_vars)).assign(
        {name: scores[steps[name].attrs["log_likelihood"]] for name in steps.data_vars}
    )
    groups["posterior_predictive"] = steps
    groups["observed_data"] = groups["observed_data"][list(steps.data_vars)]
    return container(groups)
