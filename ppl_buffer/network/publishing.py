"""Share a network: its file and its card, on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ppl_buffer.checks import check_flag
from ppl_buffer.network.card import card as card_of
from ppl_buffer.network.checkpoint import save
from ppl_buffer.network.hub import FILE, Address, HubLike, client
from ppl_buffer.network.network import Network


def publish(
    net: Network,
    name: str,
    *,
    card: str | None = None,
    license: str | None = None,
    private: bool = False,
    hub: HubLike | None = None,
) -> str:
    """Upload a network and its card to the Hugging Face hub, in one commit, for others to `load`.

    Log in before, by ``hf auth login`` or the environment variable ``HF_TOKEN``.

    Args:
        net: a network from `train` or `load`, of either backend.
        name: of the repository, ``"owner/name"``. It is made where there is none; what it holds of earlier commits
            stays there, under their revisions.
        card: text of the card, in Markdown. By default it is written from the network: what a data set holds, sizes,
            stages of the training, trained ranges and, where it was measured, the error.
        license: the hub's word for a licence, such as ``"apache-2.0"``.
        private: whether a repository that is made is hidden from others.
        hub: a client of another server or another user, a ``huggingface_hub.HfApi``; by default that of this machine.

    Returns:
        the address of this very version, ``"hf://owner/name@revision"``: what `load` takes.

    Raises:
        ValueError: if the name is none of a repository, or a weight is not finite.
        OSError: as huggingface_hub raises it, where the hub cannot be reached or refuses.
        ImportError: if huggingface_hub is not installed.
    """
    if not isinstance(net, Network):
        raise ValueError(f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}")
    address = Address.parse("name", name)
    if address != Address(address.repository):
        raise ValueError(f"name: expected owner/name, without revision or file, got {name!r}")
    if card is not None and not isinstance(card, str):
        raise ValueError(f"card: expected the text of a card, got {type(card).__name__}")
    if license is not None and not (isinstance(license, str) and re.fullmatch(r"[\w.+-]+", license)):
        raise ValueError(f"license: expected the hub's word for a licence, such as 'apache-2.0', got {license!r}")
    private = check_flag("private", private)
    api = client(hub, "publish")
    with TemporaryDirectory() as folder:
        save(net, Path(folder) / FILE)
        text = card_of(net, str(address)) if card is None else card
        # A card with a head of its own keeps it.
        head = "" if text.startswith("---\n") else _head(license)
        (Path(folder) / "README.md").write_text(head + text, encoding="utf-8")
        api.create_repo(address.repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=address.repository, folder_path=folder, commit_message="A network of ppl_buffer and its card"
        )
    return str(replace(address, revision=commit.oid))


def _head(license: str | None) -> str:
    """What the hub reads of a card."""
    tags = ["simulation-based-inference", "amortized-inference", "probabilistic-programming"]
    lines = ["---", "library_name: ppl_buffer", "tags:", *(f"- {tag}" for tag in tags)]
    lines += [] if license is None else [f"license: {license}"]
    return "\n".join([*lines, "---", "", ""])
