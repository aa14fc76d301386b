"""Set predictors that are not ours: the documentation's, and one that is exact."""

import math
import re
from pathlib import Path

import torch
from torch import nn

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "buffer_for_a_module.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
# Of the unknown mean, about zero; points vary about the mean by one.
SPREAD = 2.0


def documented_module():
    """The class that the page shows."""
    names = {}
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    return names["TNP"]


class ExactMean(nn.Module):
    """Predicts points of Normal(mu, 1), mu ~ Normal(0, SPREAD), as one layer that counts and sums what it reads.

    All scores are zero, and before the points stands a token of its own: a mean over M values (y, 0) and one (0, 1)
    says how many there are, and their sum.
    """

    def encode(self, x, y):
        null = y.new_tensor([0.0, 1.0]).expand(len(y), 1, 1, 2)
        return [tuple(torch.cat(parts, 2) for parts in zip((0 * null, null), self._shown(y), strict=True))]

    def _shown(self, y):
        values = torch.stack([y, torch.zeros_like(y)], -1)[:, None]
        return torch.zeros_like(values), values

    def embed_pairs(self, x, y):
        return torch.stack([x, y], -1)

    def embed_targets(self, x):
        return torch.stack([x, torch.zeros_like(x)], -1)

    def queries(self, layer, tokens):
        return tokens[:, None]

    def keys_values(self, layer, tokens):
        return self._shown(tokens[..., 1])

    def finish(self, layer, tokens, read):
        return read[:, 0]

    def predict(self, tokens):
        total, precision = tokens[..., 0] / tokens[..., 1], SPREAD**-2 + 1 / tokens[..., 1] - 1
        return torch.distributions.Normal(total / precision, (1 + 1 / precision).sqrt())


def exact_log_density(context, targets):
    """Of targets (B, K) given a context (B, N), each alone and together: (B,) each."""
    from scipy import stats

    count, spread = targets.shape[1], 1 / (SPREAD**-2 + context.shape[1])
    away = targets - context.sum(1, keepdims=True) * spread
    alone = stats.norm(0, math.sqrt(1 + spread)).logpdf(away).sum(1)
    return alone, stats.multivariate_normal(cov=torch.eye(count).numpy() + spread).logpdf(away)


def draw_points(rng, size, points):
    """Of that model; inputs mean nothing."""
    mean = rng.normal(0, SPREAD, (size, 1))
    return rng.normal(size=(size, points)), rng.normal(mean, 1, (size, points))
