"""Networks on the Hugging Face hub: what is published is loaded again, of the revision that was asked for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.network.card import card
from ppl_buffer.network.hub import Address
from tests.network.hubs import FolderHub
from tests.networks import FUNCTION, FUNCTION_RECORD, LEARNING, network
from tests.rules.source import ROOT

BACKENDS = ["jax", "torch"]


def need(backend):
    pytest.importorskip(backend)


def assert_same_weights(one, other):
    assert one.digest == other.digest
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(to_numpy(weight), to_numpy(other.weights[name]))


@pytest.mark.parametrize(("written", "read"), [BACKENDS, BACKENDS[::-1]])
def test_what_is_published_is_loaded_in_the_other_backend(tmp_path, written, read):
    need(written), need(read)
    hub, net = FolderHub(tmp_path), network(FUNCTION, written, FUNCTION_RECORD)
    address = pb.publish(net, "jo/function-1.0", hub=hub, license="mit", private=True)
    assert address == "hf://jo/function-1.0@c0" and hub.asked == [("jo/function-1.0", True)]
    again = pb.load(address, read, hub=hub)
    assert_same_weights(net, again)
    assert again.schema == net.schema and again.record.to_dict() == net.record.to_dict() and again.backend == read
    files = {path.name for path in (tmp_path / "jo" / "function-1.0" / "c0").iterdir()}
    assert files == {"README.md", "model.safetensors"}
    head, text = (tmp_path / "jo" / "function-1.0" / "c0" / "README.md").read_text().split("\n---\n\n")
    assert head.startswith("---\nlibrary_name: ppl_buffer\n") and head.endswith("license: mit")
    assert text == card(net, "hf://jo/function-1.0")


def test_revisions_keep_their_networks(tmp_path):
    need("jax")
    hub, nets = FolderHub(tmp_path), [network(case, "jax") for case in (FUNCTION, LEARNING)]
    first, second = (pb.publish(net, "hf://jo/net", hub=hub, card="# Mine\n") for net in nets)
    assert_same_weights(pb.load(first, hub=hub), nets[0])
    assert_same_weights(pb.load(second, hub=hub), nets[1])
    assert_same_weights(pb.load("hf://jo/net", hub=hub), nets[1])
    assert (tmp_path / "jo/net/c1/README.md").read_text().endswith("---\n\n# Mine\n")


def test_a_file_that_was_damaged_on_its_way_is_refused(tmp_path):
    need("jax")
    hub = FolderHub(tmp_path)
    address = pb.publish(network(FUNCTION, "jax"), "jo/net", hub=hub)
    path = tmp_path / "jo/net/c0/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not have the checksum that was stored"):
        pb.load(address, hub=hub)


def test_what_the_hub_does_not_have_is_said_in_one_line(tmp_path):
    need("jax")
    hub = FolderHub(tmp_path)
    pb.publish(network(FUNCTION, "jax"), "jo/net", hub=hub)
    with pytest.raises(
        FileNotFoundError, match=r"^name_or_path: hf://jo/net@v2 could not be fetched \(nothing at v2\)$"
    ):
        pb.load("hf://jo/net@v2", hub=hub)
    with pytest.raises(FileNotFoundError, match="hf://jo/net/other.safetensors could not be fetched"):
        pb.load("hf://jo/net/other.safetensors", hub=hub)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://jo/net", ("jo/net", None, "model.safetensors")),
        ("jo/net@v1.2", ("jo/net", "v1.2", "model.safetensors")),
        ("hf://jo/net@refs/pr/3/deep/one.safetensors", ("jo/net", "refs/pr/3", "deep/one.safetensors")),
        ("hf://jo/net@feature%2Fone", ("jo/net", "feature/one", "model.safetensors")),
        ("hf://jo/net/one.safetensors", ("jo/net", None, "one.safetensors")),
    ],
)
def test_addresses_are_read_as_the_hub_writes_them(text, parts):
    address = Address.parse("name", text)
    assert (address.repository, address.revision, address.file) == parts
    assert Address.parse("name", str(address)) == address


@pytest.mark.parametrize("text", ["hf://net", "hf://", "hf:///net", "hf://jo/net@", "hf://jo/net@/x", "hf://../net", 3])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="name: expected hf://owner/name"):
        Address.parse("name", text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net": "noisy_q"}, "net: expected a network"),
        ({"name": "net"}, "name: expected hf://owner/name"),
        ({"name": "jo/net@v1"}, "name: expected owner/name, without revision or file"),
        ({"card": 3}, "card: expected the text of a card"),
        ({"license": "a b"}, "license: expected the hub's word"),
        ({"private": "no"}, "private: expected True or False"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_sent(tmp_path, change, said):
    need("jax")
    hub = FolderHub(tmp_path)
    arguments = {"net": network(FUNCTION, "jax"), "name": "jo/net", "hub": hub, **change}
    with pytest.raises(ValueError, match=said):
        pb.publish(**arguments)
    assert hub.asked == [] and list(tmp_path.iterdir()) == []


def test_a_card_says_what_the_record_knows():
    need("jax")
    text = card(network(FUNCTION, "jax", FUNCTION_RECORD), "hf://jo/net")
    for line in (
        'net = pb.load("hf://jo/net", backend="jax")  # or "torch"',
        "seen = net.observe(inputs, value)",
        "| `sigma` | parameter | a number above 0 |",
        "| `sigma` | unknown | 0.5 to 3 |",
        "| `mu` | Normal | -2 to 2 |",
        "On none, with up to 11 trials and contexts of up to 13.",
    ):
        assert line in text.splitlines()
    assert "no record of a training" in card(network(LEARNING, "jax"), "hf://jo/net")
    shipped = card(pb.load("ddm", backend="jax"), "hf://jo/ddm")
    error = pb.load("ddm", backend="jax").record.errors["likelihood"]
    assert f"{error.nats_per_trial:.2g}" in shipped and max(map(len, shipped.splitlines())) <= 120


CACHED = """
import json, sys
import ppl_buffer as pb
nets = [pb.load(address, backend="jax") for address in ("hf://jo/net", "hf://jo/net@" + "a" * 40)]
said = ""
try:
    pb.load("hf://jo/other", backend="jax")
except FileNotFoundError as error:
    said = str(error)
print(json.dumps([[net.digest for net in nets], said]))
"""


def test_without_a_network_the_hubs_cache_is_read(tmp_path):
    """huggingface_hub itself, with a cache that it would have made, and no connection."""
    (
        need("jax"),
        pytest.importorskip(
            "huggingface_hub", reason="huggingface_hub is not installed: `make test-neighbours` has it"
        ),
    )
    net, cache = network(FUNCTION, "jax"), tmp_path / "hub" / "models--jo--net"
    snapshot = cache / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    pb.save(net, snapshot / "model.safetensors")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", CACHED], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digests, said = json.loads(done.stdout.splitlines()[-1])
    assert digests == [net.digest] * 2
    assert said.startswith("name_or_path: hf://jo/other could not be fetched (") and "\n" not in said
