"""Scores of how well a fitted model predicts, each under the name of what it measures.

With trials that depend on each other "leave one out" can mean several things. All scores are sums of log predictive
densities (elpd, in nats; higher is better); they differ in what is left out and in what the prediction may see:

| score | predicts | sees | computed by |
|---|---|---|---|
| `loo` | trial t | the trials before it; parameters from all *other factors* | PSIS-LOO |
| `logo` | all trials of a person | the other people | PSIS-LOO |
| `lfo` | trial t | the person's trials before it, and the other people | PSIS-LFO |
| `kfold` | all trials of a person | people of other folds | refits |
| `reloo` | what a `loo` or `logo` predicts | what that sees | refits of the terms that PSIS fails at |
| `leave_one_out` | trial i of a set | all other trials of the set | the network, exactly |

- `loo` is what `az.loo` computes of a result of `ppl_buffer.arviz`. It is one step ahead and *in sample*: trial
  t leaves the posterior as a factor, yet stays in the history of later trials, and these inform the parameters. Good
  for comparing what two models say of the next response; slightly optimistic as a forecast.
- `lfo` is the honest forecast: neither trial t nor any later one of that person informs the prediction.
- `logo` is about new people. Parameters of a person that are weakly tied to the population make the importance
  weights heavy-tailed, which Pareto k shows.
- `leave_one_out` is for exchangeable models alone, where a trial has no place in an order. The network integrates all
  parameters over *its training prior*: there is no posterior and no sampling.

The first three reweight the draws of one posterior by Pareto smoothed importance sampling (Vehtari, Simpson, Gelman,
Yao & Gabry 2024). Where that fails `pareto_k` says: terms above `Score.threshold` are not to be trusted, and `reloo`
replaces them by exact ones.
`lfo` follows Buerkner, Gabry & Vehtari (2020), "Approximate leave-future-out cross-validation for Bayesian time series
models", without their refits: where k is high, a score of early trials needs a posterior of early trials.
"""

from ppl_buffer.scores.exchangeable import leave_one_out
from ppl_buffer.scores.importance import by_subject, lfo, logo, loo, psis_loo
from ppl_buffer.scores.refits import kfold, reloo
from ppl_buffer.scores.score import MEANING, Score

__all__ = ["MEANING", "Score", "by_subject", "kfold", "leave_one_out", "lfo", "logo", "loo", "psis_loo", "reloo"]
