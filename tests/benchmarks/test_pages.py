"""The pages of the documentation: their code runs, and the names and options that they write exist."""

import importlib
import re
import textwrap
from pathlib import Path

import pytest

import ppl_buffer as pb

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([DOCS.parent / "README.md", *DOCS.glob("*.md"), *(DOCS / "howto").glob("*.md")])


def code_of(page, fence="```python\n(.*?)```"):
    """The code of a page's blocks, without the options of a directive."""
    blocks = [textwrap.dedent(block) for block in re.findall(fence, (DOCS / page).read_text(), re.DOTALL)]
    return re.sub(r"^:.*\n", "", "\n".join(blocks), flags=re.MULTILINE)


def run(page, code):
    names = {}
    exec(compile(code, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_front_page_runs(quick_compilation):
    pytest.importorskip("numpyro")
    code, count = re.subn(
        r"num_warmup=300, num_samples=500", "num_warmup=5, num_samples=7, progress_bar=False", code_of("index.md")
    )
    assert count == 1 and len([line for line in code.splitlines() if line.strip()]) <= 20
    draws = run("index.md", code)["mcmc"].get_samples()
    assert {name: x.shape for name, x in draws.items()} == dict.fromkeys(pb.load("noisy_q").box, (7, 4))


def test_the_page_on_priors_runs(quick_compilation, capsys):
    numpyro = pytest.importorskip("numpyro")
    import jax

    names = run("howto/priors.md", code_of("howto/priors.md"))
    assert str(names["net"].box) in (DOCS / "howto" / "priors.md").read_text()
    for model in ("trained", "informed"):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(names[model], jax.random.PRNGKey(0))).get_trace()
        assert trace["choice"]["is_observed"] and set(trace) == {"people", "choice", *names["net"].box}
    # What the page says of both priors: without the people's knowledge there is hardly a curve.
    rise = {name: float((curves[:2, -1] - curves[:2, 0]).min()) for name, curves in names["curves"].items()}
    assert rise["informed"] > 0.1 > abs(rise["trained"])


def test_the_gallery_shows_every_plot(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    code = code_of("howto/plots.md", r"\.\. plot::\n(.*?)```")
    expected = {name for name in pb.plots.__all__ if name.startswith("plot_")}
    shown = re.findall(r"plots\.(plot_\w+)\(", code)
    assert set(shown) == expected
    # Each picture has a file of its own, or all would be the last one.
    assert re.findall(r":filename-prefix: (\w+)\n", (DOCS / "howto" / "plots.md").read_text()) == shown
    pyplot.close("all")
    try:
        run("howto/plots.md", code)
        figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
        assert len(figures) == len(expected)
        # Beside pairs of quantities stand their correlations, in words.
        assert all(panel.has_data() or panel.texts for figure in figures for panel in figure.axes)
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    for dotted in sorted(set(re.findall(r"\bpb\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", page.read_text()))):
        first, *rest = dotted.split(".")
        if first == "sbi":  # imports for seconds
            assert not rest or f"class {rest[0]}" in (Path(pb.__file__).parent / "sbi.py").read_text()
            continue
        if first == "pymc":
            pytest.importorskip("pymc")
        if first in ("save", "train"):
            pytest.importorskip("torch")
        value = getattr(pb, first)
        for name in rest:
            value = getattr(value, name)


def written_commands(text):
    """Commands as a page writes them: (command, its options), continued lines joined."""
    text = text.replace("\\\n", " ")
    for line in re.findall(r"(?:^|`)(?:\$ )?ppl-buffer ([^`\n]*)", text, re.MULTILINE):
        words = line.split()
        if words and re.fullmatch(r"[a-z]+", words[0]):
            yield words[0], [word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    typer = pytest.importorskip("typer")
    app = importlib.import_module("ppl_buffer.workflow.cli.app").app
    commands = typer.main.get_command(app).commands
    known = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }
    for command, options in written_commands(page.read_text()):
        assert command in known and set(options) <= known[command] | {"--help"}, (command, options)
    if page.name == "command_line.md":
        assert set(commands) <= {command for command, _ in written_commands(page.read_text())}
        alone = re.findall(r"`(--[a-z][a-z-]*)", page.read_text())
        assert set(alone) - {"--help"} <= set().union(*known.values())


def test_calls_are_found_where_lines_go_on():
    assert list(written_commands("```\n$ ppl-buffer fit a.csv \\\n  --model x\n```\n`ppl-buffer zoo`")) == [
        ("fit", ["--model"]), ("zoo", []),
    ]  # fmt: skip


def test_a_table_of_the_zoo_has_every_network():
    table = (DOCS / "zoo.md").read_text()
    for entry in pb.zoo():
        assert re.search(rf"^\| \[`{entry.name}`\]", table, re.MULTILINE), entry.name
