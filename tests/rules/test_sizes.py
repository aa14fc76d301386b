"""Files, functions and lists of arguments that one can take in at a glance; `Any` for values of third parties only."""

import pytest

from tests.rules.source import RATCHETS, ROOT, functions, modules, names

FILE, FUNCTION, ARGUMENTS = 400, 60, 10
# A distribution, a query, a training, a table, a fit and what repeats a distribution's arguments (evidence, simulation)
# are told everything at once, a command every option.
MANY_ARGUMENTS = {
    "ppl_buffer/datasets/tables.py": {"read_trials"},
    "ppl_buffer/inference/evidence.py": {"log_evidence"},
    "ppl_buffer/inference/simulation.py": {"posterior_predictive"},
    "ppl_buffer/numpyro/distribution.py": {"JointPredictive.__init__"},
    "ppl_buffer/predictive/query.py": {"Query.build"},
    "ppl_buffer/pymc/distribution.py": {"JointPredictive.__new__"},
    "ppl_buffer/pyro/distribution.py": {"JointPredictive.__init__"},
    "ppl_buffer/training/loop.py": {"train"},
    "ppl_buffer/training/module_training.py": {"add_buffer_to_module"},
    "ppl_buffer/workflow/fitting.py": {"fit"},
}
COMMANDS = "ppl_buffer/workflow/cli/"


def too_large(found, limit, table):
    """What is above the limit and above its ratchet."""
    ceiling = RATCHETS[table]
    return {name: size for name, size in found.items() if size > max(limit, ceiling.get(name, 0))}


def program_files():
    for folder in ("ppl_buffer", "tests", "benchmarks", "examples"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_a_file_has_at_most_400_lines():
    found = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in program_files()}
    assert too_large(found, FILE, "long_files") == {}


def every_function():
    return {f"{module.file}: {one.name}": one for module in modules().values() for one in functions(module)}


def test_a_function_has_at_most_60_lines_of_code():
    found = {name: one.lines for name, one in every_function().items()}
    assert too_large(found, FUNCTION, "long_functions") == {}


def test_a_function_takes_at_most_10_arguments():
    found = {
        name: one.arguments
        for name, one in every_function().items()
        if not one.module.file.startswith(COMMANDS) and one.name not in MANY_ARGUMENTS.get(one.module.file, ())
    }
    assert too_large(found, ARGUMENTS, "many_arguments") == {}


@pytest.mark.parametrize("rooms", ["network predictive", "everything else"])
def test_any_is_for_values_of_third_parties(rooms):
    core = ("ppl_buffer.network", "ppl_buffer.predictive")
    found = 0
    for name, module in modules().items():
        if name.startswith(core) == (rooms == "network predictive"):
            imported = "from typing import" in module.text and " Any" in module.text
            found += sum(word == "Any" for word, _ in names(module.text)) - imported
    assert found <= RATCHETS["any"][rooms]


def test_lines_of_code_are_counted_without_docstrings_and_comments():
    schema = next(one for one in functions(modules()["ppl_buffer.schema"]) if one.name == "Schema.require_lapse")
    assert (schema.lines, schema.arguments) == (6, 1)
