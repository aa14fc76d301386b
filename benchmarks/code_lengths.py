"""Bits a trial of compressed choices and response times: a network's code beside gzip and xz.

Of one simulated learner of 400 trials (all parameters given, by either part of `noisy_q`; none given) the length of the
code beside -log2 of the probability of the choices: the overhead. Of people in the probabilistic selection task (the
folder `PPL_BUFFER_DATA`; simulated ones where it is not set) their choices, and with `rlddm` choices and response times
in milliseconds of the first `--times` of them: with no parameter given, and with the best of 256 draws from the prior
for each person, named in 8 bits more. gzip and xz see the outcomes alone, in the best of several arrangements: text,
bytes, packed bits, person by person or pair by pair.

    python benchmarks/code_lengths.py [--subjects 28] [--times 6] [--quick] [--out DIR]
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from harness import bar, parse, print_bars, print_table, training_steps, write_results

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData, selection_task, simulated_selection_task
from ppl_buffer.inference.compression import code_length
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

SEED, TRIALS, DRAWS, STEP = 17, 400, 256, 0.001
OVERHEAD = 0.01  # bits a trial, of 400 trials


def overheads(trials: int) -> list[dict[str, Any]]:
    """Of one simulated learner: bits a trial, and how many more than -log2 of the probability."""
    net, simulator, rng = pb.load("noisy_q", backend="torch"), pb.simulators.NoisyQ(), np.random.default_rng(SEED)
    params = {name: np.array([x], np.float32) for name, x in zip(net.schema.params, (0.3, 2.0, 0.3, 0.2), strict=True)}
    inputs = simulator.inputs(rng, 1, trials)
    sets = simulator.simulate(rng, params, inputs)
    choice, feedback = sets["choice"].astype(np.float32), {"reward": sets["reward"].astype(np.float32)}
    rows = []
    for given, part in (("all parameters", "direct"), ("all parameters", "buffer"), ("none", "buffer")):
        arguments = {"params": params if given == "all parameters" else None, "feedback": feedback}
        begun = time.process_time()
        code = pb.compress(net, inputs, choice, likelihood=part, **arguments)
        middle = time.process_time()
        back = pb.decompress(net, inputs, code, **arguments)
        query = Query.build(net, inputs, likelihood=part, outside="ignore", **arguments)
        exact = -float(density.log_prob(query, torch.as_tensor(choice))[0]) / math.log(2)
        rows.append(
            {
                "given": given,
                "by": part,
                "bits a trial": code_length(code) / trials,
                "-log2 p": exact / trials,
                "overhead": (code_length(code) - exact) / trials,
                "bytes of the stream": len(code),
                "came back": bool((back == choice).all()),
                "seconds to compress": middle - begun,
                "seconds to decompress": time.process_time() - middle,
            }
        )
    return rows


def best_draws(net: Any, data: TrialData, value: np.ndarray) -> dict[str, np.ndarray]:
    """For each person, the parameters with the largest likelihood among draws from the prior."""
    rng = np.random.default_rng(SEED)
    draws: dict[str, np.ndarray] = {}
    for name, prior in net.record.priors.items():
        draws[name] = prior.sample(rng, DRAWS).astype(np.float32)
    query = Query.build(
        net, data.inputs, params={name: x[:, None] for name, x in draws.items()}, feedback=data.feedback,
        trial_mask=data.trial_mask, outside="ignore",
    )  # fmt: skip
    with torch.no_grad():
        value = torch.as_tensor(np.broadcast_to(value, (DRAWS, *value.shape)).copy())
        totals = np.nan_to_num(density.log_prob(query, value).numpy(), nan=-np.inf)
    best = totals.argmax(0)
    return {name: x[best] for name, x in draws.items()}


def archives(data: TrialData, value: np.ndarray) -> dict[str, int]:
    """Bytes of gzip and xz, each of the arrangement that suits it best."""
    columns = [value] if value.ndim == 2 else list(np.moveaxis(value, -1, 0))
    whole = [np.round(x / (STEP if index else 1)).astype(int) for index, x in enumerate(columns)]
    pair, mask = data.inputs["pair"], data.trial_mask
    arranged = []
    for order in ([slice(None)], [pair == index for index in range(3)]):
        kept = [np.concatenate([x[row][mask[row] & where[row]] for row in range(len(x)) for where in
                                [np.ones_like(mask) if isinstance(part, slice) else part for part in order]])
                for x in whole]  # fmt: skip
        arranged.append(" ".join(",".join(map(str, x)) for x in zip(*kept, strict=True)).encode())
        times = b"".join(x.astype("<u2").view(np.uint8).reshape(-1, 2).T.tobytes() for x in kept[1:])
        arranged += [
            kept[0].astype(np.uint8).tobytes() + times,
            np.packbits(kept[0].astype(np.uint8)).tobytes() + times,
        ]
    xz = {"format": lzma.FORMAT_ALONE, "preset": 9 | lzma.PRESET_EXTREME}
    return {
        "gzip -9": min(len(gzip.compress(x, 9)) for x in arranged),
        "xz -9e": min(len(lzma.compress(x, **xz)) for x in arranged),
    }


def of_subjects(name: str, data: TrialData) -> list[dict[str, Any]]:
    """Bits a trial of all people together, by the network and by archives; a row each."""
    net, trials = pb.load(name, backend="torch"), int(data.trial_mask.sum())
    columns = [np.asarray(data.outcomes[key], np.float32) for key in net.schema.outcomes]
    value = columns[0] if len(columns) == 1 else np.stack(columns, -1)
    more = {} if len(columns) == 1 else {"resolution": {"rt": STEP}}
    arguments: dict[str, Any] = {"feedback": data.feedback, "trial_mask": data.trial_mask}
    rows = []
    for how in ("no parameter given", f"best of {DRAWS} parameters"):
        given = {} if how.startswith("no") else {"params": best_draws(net, data, value)}
        begun = time.process_time()
        code = pb.compress(net, data.inputs, value, **arguments, **given, **more)
        middle = time.process_time()
        back = pb.decompress(net, data.inputs, code, **arguments, **given)
        named = len(data.subjects) * math.ceil(math.log2(DRAWS)) if given else 0
        scale = np.array([1.0] + [1 / STEP] * (len(columns) - 1)) if more else 1.0
        same = np.round(back * scale) == np.round(value.astype(float) * scale)
        rows.append(
            {
                "outcomes": name,
                "how": how,
                "bits a trial": (8 * len(code) + named) / trials,
                "code alone": (code_length(code) + named) / trials,
                "came back": bool(same[data.trial_mask].all()),
                "seconds both ways": time.process_time() - begun,
                "seconds to compress": middle - begun,
            }
        )
        print(*rows[-1].values(), flush=True)
    for how, size in archives(data, value).items():
        rows.append({"outcomes": name, "how": how, "bits a trial": 8 * size / trials})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = parse(__doc__, arguments, subjects=28, times=6)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # of people unlike the simulations
    real = bool(os.environ.get("PPL_BUFFER_DATA"))
    data = selection_task() if real else simulated_selection_task(SEED)
    count = 2 if options.quick else options.subjects
    learner = overheads(40 if options.quick else TRIALS)
    print_table("One simulated learner, `noisy_q`", list(learner[0]), [list(row.values()) for row in learner])
    rows = of_subjects("noisy_q", data.select(range(count)))
    if "rt" in data.outcomes:
        rows += of_subjects("rlddm", data.select(range(min(count, options.times))))
    names = ["outcomes", "how", "bits a trial", "code alone", "came back", "seconds both ways"]
    title = f"{count} {'people' if real else 'simulated people'}, {int(data.trial_mask[:count].sum())} trials"
    print_table(title, names, [[row.get(name) for name in names] for row in rows])
    by = {row["how"]: row["bits a trial"] for row in rows if row["outcomes"] == "noisy_q"}
    least = {name: by[name] / by["no parameter given"] for name in ("gzip -9", "xz -9e")}
    bars = [
        bar(f"overhead, {x['given']} given, {x['by']}: bits a trial", x["overhead"], most=OVERHEAD) for x in learner
    ]
    bars += [bar(f"choices: {name} by the network's stream", ratio, least=1.0) for name, ratio in least.items()]
    print_bars(bars)
    steps = {name: training_steps(pb.load(name, backend="torch")) for name in ("noisy_q", "rlddm")}
    results = {"training_steps": steps, "real": real, "people": count, "learner": learner, "rows": rows, "bars": bars}
    write_results("code_lengths", results, options.out)


if __name__ == "__main__":
    main()
