import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import weight_shapes
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.network import Network
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.network.zoo import Zoo, ZooEntry

SCHEMA = pb.Schema(
    params={"alpha": pb.Interval(0, 1), "zeta": pb.Interval(0, 1, closed=True)},
    inputs={"cue": pb.Categorical(3)},
    outcomes={"choice": pb.Categorical(2), "rt": pb.Positive(lapse_range=(0.1, 5.0))},
    feedback={"reward": pb.Real()},
    ordered=True,
)
CONFIG = pb.Config(width=6, depth=2, heads=3, mlp=7, components=5, param_depth=1, contextual_positions=2)
STANDARDIZATION = {"alpha": (0.1, 1.3), "zeta": (1 / 3, 0.7), "rt": (-0.2, 0.6), "reward": (0.5, 0.5)}
RECORD = TrainingRecord(
    box={"alpha": (0.1, 0.9), "zeta": (0.0, 1.0)},
    priors={"alpha": pb.Prior("Beta", {"concentration1": 2.0, "concentration0": 3.0}), "zeta": None},
    trials=17,
    context=0,
    simulator="Made",
    stages=(
        StageRecord("2026-01-02", {"torch": "2.9"}, None, 3, 70, 60, 2e-3, None, 190, 1, 0, {"trials": [3, 9]}),
        StageRecord("2026-01-03", {"torch": "2.9"}, "5e", 4, 50, 40, 1e-3, 0.1 + 0.2, 90, 2, 1, {"trials": [3, 17]}),
    ),
    ranges={
        "cue": ValueRange(0.0, 2.0, values=(0.0, 1.0, 2.0), shares=(0.25, 0.75, 0.0)),
        "rt": ValueRange(0.2, 4.5, ((0.01, 0.3), (0.99, 1 / 3)), (0.4, 0.9), (0.1, 1.2)),
    },
    errors={"buffer": EstimatedError(1 / 300, 0.002, 0.005, "snapshots", "buffer")},
)


class Made(Network):
    dtype = np.dtype("float32")
    digest = ""


def made(record=RECORD, seed=0):
    """A network of no backend: what `save` needs, and no more."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(SCHEMA, CONFIG).items()}
    net = Made()
    net.schema, net.config, net.standardization, net.weights, net.record = (
        SCHEMA,
        CONFIG,
        STANDARDIZATION,
        weights,
        record,
    )
    return net


@pytest.fixture(params=["torch", "jax"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def test_round_trip_is_exact(tmp_path, backend):
    net = made()
    pb.save(net, tmp_path / "a.safetensors")
    loaded = pb.load(tmp_path / "a.safetensors", backend=backend)
    assert loaded.backend == backend
    pb.save(loaded, tmp_path / "b.safetensors")
    again = pb.load(str(tmp_path / "b.safetensors"), backend=backend)
    for other in (loaded, again):
        assert other.schema.to_dict() == SCHEMA.to_dict() and list(other.schema.outcomes) == ["choice", "rt"]
        assert other.config == CONFIG and other.standardization == STANDARDIZATION and other.record == RECORD
        assert other.weights.keys() == net.weights.keys()
        for name, weight in net.weights.items():
            np.testing.assert_array_equal(np.asarray(other.weights[name]), weight)
    assert from_safetensors((tmp_path / "a.safetensors").read_bytes()).keys() == net.weights.keys()


def test_a_network_without_record(tmp_path, backend):
    pb.save(made(record=None), tmp_path / "a.safetensors")
    assert pb.load(tmp_path / "a.safetensors", backend=backend).record is None


def test_torch_network_is_frozen(tmp_path):
    torch = pytest.importorskip("torch")
    pb.save(made(), tmp_path / "a.safetensors")
    net = pb.load(tmp_path / "a.safetensors", backend="torch")
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    # What the module holds is what the arithmetic reads.
    assert {id(x) for x in net.parameters()} == {id(x) for x in net.weights.values()}
    assert net.dtype == torch.float32


def test_default_backend_is_jax_where_it_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    pb.save(made(), tmp_path / "a.safetensors")
    assert pb.load(tmp_path / "a.safetensors").backend == "jax"
    find = checkpoint.importlib.util.find_spec
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None if name == "jax" else find(name))
    assert pb.load(tmp_path / "a.safetensors").backend == "torch"


def test_record_survives_json():
    assert TrainingRecord.from_dict(json.loads(json.dumps(RECORD.to_dict()))) == RECORD


def test_provenance_is_that_of_the_last_stage():
    facts = RECORD.provenance
    assert (facts["seed"], facts["start"], facts["trials"], facts["held_out_loss"]) == (4, "5e", [3, 17], 0.1 + 0.2)
    assert "options" not in facts
    assert TrainingRecord(box={}, priors={}, trials=1, context=0, simulator="none").provenance == {}


def parts(content):
    size = int.from_bytes(content[:8], "little")
    description = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["ppl_buffer"])
    # As a file from before there were checksums.
    return {name: x for name, x in description.items() if name != "sha256"}, from_safetensors(content)


def rewritten(change):
    def damage(content):
        description, arrays = parts(content)
        change(description, arrays)
        return to_safetensors(arrays, metadata={"ppl_buffer": json.dumps(description)})

    return damage


def set_weight(arrays, name, index, value):
    arrays[name] = arrays[name].copy()
    arrays[name][index] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content[:3], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: b"PK\x03\x04" + content, "damaged"),
        (lambda content: to_safetensors(parts(content)[1]), "no 'ppl_buffer' metadata"),
        (lambda content: to_safetensors({}, metadata={"ppl_buffer": "{"}), "is damaged"),
        (lambda content: to_safetensors({}, metadata={"ppl_buffer": "[1]"}), "is damaged"),
        (rewritten(lambda d, a: d.update(format=3)), "expected format 2, got 3"),
        (rewritten(lambda d, a: d.pop("format")), "metadata .* is damaged .*format"),
        (rewritten(lambda d, a: d.pop("schema")), "metadata .* is damaged .*schema"),
        (
            rewritten(lambda d, a: d["schema"]["params"][0][1].update(kind="Unheard")),
            "metadata .* is damaged .*Unheard",
        ),
        (rewritten(lambda d, a: d["config"].update(width=7)), "metadata .* is damaged .*heads"),
        (rewritten(lambda d, a: d["config"].update(dept=7)), "metadata .* is damaged .*dept"),
        (rewritten(lambda d, a: d["standardization"].pop("rt")), "is damaged .*standardization of .*'rt'.* expected"),
        (rewritten(lambda d, a: d["standardization"].update(rt=[0.0, 0.0])), "is damaged .*standardization of 'rt' is"),
        (rewritten(lambda d, a: d["record"].pop("box")), "metadata .* is damaged .*box"),
        (rewritten(lambda d, a: d["record"]["priors"]["alpha"].update(family="x")), "is damaged .*family"),
        (rewritten(lambda d, a: d["config"].update(depth=3)), r"missing \['layers.2.counter.bias'"),
        (rewritten(lambda d, a: d["config"].update(depth=10**9)), "config.depth is 1000000000, but there are only"),
        (
            rewritten(lambda d, a: d["record"].update(dose=1)),
            "newer version .* since record.dose is not known",
        ),
        (rewritten(lambda d, a: d.update(extra={})), "newer version .* since extra is not known"),
        (rewritten(lambda d, a: d["schema"].update(pace=2)), "newer version .* since schema.pace is not known"),
        (rewritten(lambda d, a: d["record"]["priors"]["alpha"].update(knots=[])), r"record.priors.alpha.knots is not"),
        (rewritten(lambda d, a: d["record"]["stages"][0].update(watts=3)), "since record.stages.watts is not known"),
        (rewritten(lambda d, a: d["record"]["box"].update(alpha=[0.9, 0.1])), r"record.box\['alpha'\]: .*in order"),
        (rewritten(lambda d, a: d["record"]["box"].update(zeta=[0.0, math.inf])), r"record.box\['zeta'\]: .*finite"),
        (rewritten(lambda d, a: d["record"]["box"].pop("zeta")), r"record.box: expected .*'zeta'\], got \['alpha'\]"),
        (rewritten(lambda d, a: d["record"]["priors"].update(beta=None)), r"record.priors: expected .*, got .*'beta'"),
        (
            rewritten(
                lambda d, a: d["record"]["priors"].update(
                    alpha={"family": "Normal", "arguments": {"loc": 0, "scale": 1}, "relative_to": "zeta"}
                )
            ),
            r"record.priors\['alpha'\]: expected it to be relative to one of \[\], got 'zeta'",
        ),
        (rewritten(lambda d, a: d["record"]["stages"][1].update(step="x")), "record.stages: step: .* got 'x'"),
        (rewritten(lambda d, a: d["record"]["stages"][0].update(learning_rate=None)), "learning_rate: .* got None"),
        (rewritten(lambda d, a: d["record"]["stages"][0].update(date=3)), "record.stages: date: expected text, got 3"),
        (
            rewritten(lambda d, a: d["record"]["stages"][0].update(options=[1])),
            "stages: options: expected a dict",
        ),
        (rewritten(lambda d, a: d["record"]["ranges"]["rt"].update(high=math.nan)), r"ranges\['rt'\].high: .* got nan"),
        (rewritten(lambda d, a: d["record"]["ranges"]["rt"].update(medians=[1])), r"\['rt'\].medians: expected pairs"),
        (
            rewritten(lambda d, a: d["record"]["ranges"].update(pace={"low": 0, "high": 1})),
            "record.ranges: .*pace",
        ),
        (
            rewritten(lambda d, a: d["record"].update(likelihood_ranges={"pace": d["record"]["ranges"]["rt"]})),
            "record.likelihood_ranges: .*pace",
        ),
        (rewritten(lambda d, a: d["record"]["errors"]["buffer"].update(bars=3)), "record.errors.buffer.bars is not"),
        (rewritten(lambda d, a: d["record"]["errors"]["buffer"].update(low=1.0)), "nats_per_trial: expected a number"),
        (rewritten(lambda d, a: d["record"]["errors"]["buffer"].update(method="hope")), "method: expected one of"),
        (
            rewritten(lambda d, a: d["record"]["errors"]["buffer"].update(part="likelihood")),
            r"errors\['buffer'\]: expec",
        ),
        (rewritten(lambda d, a: d["standardization"].update(rt=["1e9", 1])), "standardization of 'rt': .*got '1e9'"),
        (
            rewritten(lambda d, a: d["record"].update(trials=0)),
            "record.trials: expected .* at least 1, got 0",
        ),
        (rewritten(lambda d, a: d["record"].update(context=-1)), "record.context: expected an integer of at least 0"),
        (lambda content: to_safetensors({}, metadata={"ppl_buffer": "[" * 10**5}), "is damaged"),
        (rewritten(lambda d, a: a.pop("role.buffer")), r"missing \['role.buffer'\], extra \[\]"),
        (rewritten(lambda d, a: a.update(more=np.ones(2, np.float32))), r"missing \[\], extra \['more'\]"),
        (
            rewritten(lambda d, a: a.update({"role.buffer": a["role.buffer"][:5]})),
            r"'role.buffer' .* float32 \(6,\), got float32 \(5,\)",
        ),
        (
            rewritten(lambda d, a: a.update({"role.buffer": a["role.buffer"].astype(float)})),
            r"float32 \(6,\), got float64 \(6,\)",
        ),
        (rewritten(lambda d, a: set_weight(a, "role.buffer", 2, math.nan)), "'role.buffer' .* non-finite"),
        (rewritten(lambda d, a: set_weight(a, "embed.pair.out.weight", (1, 2), math.inf)), "non-finite"),
    ],
)
def test_damaged_files_are_refused(damage, message, tmp_path, backend):
    path = tmp_path / "a.safetensors"
    pb.save(made(), path)
    pb.load(path, backend=backend)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"path: .*{message}"):
        pb.load(path, backend=backend)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unheard_of", {}, r"name_or_path: expected one of \[.*\] or a path to a file, got 'unheard_of'"),
        ("none.safetensors", {}, "path: expected a file, but there is none at 'none.safetensors'"),
        ("no/folder/x", {}, "path: expected a file, but there is none"),
        ("unheard_of", {"backend": "tensorflow"}, r"backend: expected one of \['torch', 'jax'\], got 'tensorflow'"),
    ],
)
def test_unknown_names_are_refused(name, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        pb.load(name, **arguments)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="path: expected a file"):
        pb.load(tmp_path, backend="torch")


def test_save_refuses_what_could_not_be_loaded(tmp_path):
    net = made()
    with pytest.raises(ValueError, match="path: expected a file in an existing folder"):
        pb.save(net, tmp_path / "none" / "a.safetensors")
    net.weights["role.buffer"][3] = np.nan
    with pytest.raises(ValueError, match="net: expected finite weights, got non-finite numbers in 'role.buffer'"):
        pb.save(net, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_save_refuses_what_is_no_file_and_what_is_no_network(tmp_path):
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    for path, kind in ((folder, "a folder"), (pipe, "no regular file")):
        with pytest.raises(ValueError, match=f"path: expected the name of a file to write, but .* is {kind}"):
            pb.save(made(), path)
    for path in (None, 3, ""):
        with pytest.raises(ValueError, match="path: expected a path, got"):
            pb.save(made(), path)
        with pytest.raises(ValueError, match="name_or_path: expected a path, got"):
            pb.load(path)
    with pytest.raises(ValueError, match="net: expected a network from .*, got NoneType"):
        pb.save(None, tmp_path / "a.safetensors")
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    """Of any byte but those that separate words of the header: the file is refused, or it is the same network."""
    path, damaged = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pb.save(made(), path)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    start = 8 + int.from_bytes(whole[:8], "little")
    places = [*rng.integers(0, start, 80), *rng.integers(start, len(whole), 40)]
    refused = 0
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(bytes(content))
        try:
            description, arrays = checkpoint.read_description(damaged)
        except ValueError as error:
            assert str(error).startswith("path: ")
            refused += 1
            continue
        assert place < start and (description, arrays.keys()) == (parts(whole)[0], parts(whole)[1].keys())
        for name, array in parts(whole)[1].items():
            np.testing.assert_array_equal(arrays[name], array)
    assert refused > 0.9 * len(places)


def test_zoo_reads_what_is_shipped(tmp_path, monkeypatch, backend):
    folder = tmp_path / "pretrained"
    folder.mkdir()
    net = made()
    pb.save(net, folder / "made.safetensors")
    pb.save(made(record=None), folder / "bare.safetensors")
    (folder / "made.json").write_text(json.dumps({"kl": 0.000512345, "data sets": 200}))
    monkeypatch.setattr(checkpoint.resources, "files", lambda package: tmp_path)
    zoo = pb.zoo()
    count = sum(weight.size for weight in net.weights.values())
    assert [entry.name for entry in zoo] == ["bare", "made"] and len(zoo) == 2
    size = (folder / "made.safetensors").stat().st_size
    parts, measured = ("likelihood", "buffer"), {"kl": 0.000512345, "data sets": 200}
    assert zoo[1] == ZooEntry("made", "Made", parts, count, size, measured)
    assert zoo[0].measured == {} and zoo[0].simulator == ""
    lines = repr(zoo).splitlines()
    assert lines[0].split() == ["name", "simulator", "parts", "weights", "size", "measured"]
    assert lines[2].startswith("made  Made") and f"{count:,}" in lines[2]
    assert lines[2].endswith("kl 0.000512, data sets 200")
    assert pb.load("made", backend=backend).record == RECORD
    with pytest.raises(ValueError, match=r"expected one of \['bare', 'made'\]"):
        pb.load("other", backend=backend)


def test_an_empty_zoo_prints_its_header():
    assert repr(Zoo([])).split() == ["name", "simulator", "parts", "weights", "size", "measured"]


def test_every_shipped_network_loads(backend):
    for entry in pb.zoo():
        net = pb.load(entry.name, backend=backend)
        assert sum(math.prod(weight.shape) for weight in net.weights.values()) == entry.weights
        assert set(net.record.box) == set(net.schema.params)


def test_importing_loads_no_backend():
    script = "import sys, ppl_buffer as pb; pb.zoo(); assert not {'torch', 'jax', 'pyro', 'numpyro'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_training_without_torch_says_what_to_install():
    script = "import sys; sys.modules['torch'] = None; import ppl_buffer as pb; pb.train"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ppl_buffer.train needs torch: pip install 'ppl-buffer[train]'" in process.stderr
