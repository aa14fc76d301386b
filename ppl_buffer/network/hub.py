"""Networks on the Hugging Face hub: their addresses, and files that are fetched once and kept in the hub's cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from ppl_buffer.extras import needs

SCHEME = "hf://"
# What the hub's pages call the weights of a model.
FILE = "model.safetensors"
_NAME = r"[A-Za-z0-9][\w.-]*"
# As the hub's file system writes it; the only revisions with a slash that are not quoted are these references.
_ADDRESS = re.compile(rf"({_NAME}/{_NAME})(?:@(refs/(?:pr|convert)/\w+|[^/@]+))?(?:/(.+))?")


class CommitLike(Protocol):
    """What an upload returns."""

    oid: str


class HubLike(Protocol):
    """What is needed of a client of the hub; `huggingface_hub.HfApi` is one."""

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None) -> str:
        """Path of a file of a repository, fetched unless it is in the cache."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        """Make a repository."""

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> CommitLike:
        """Upload the files of a folder in one commit."""


@dataclass(frozen=True)
class Address:
    """Where a network is on the hub: ``hf://owner/name[@revision][/file]``.

    Attributes:
        repository: owner and name.
        revision: a branch, a tag or a commit; None = the newest of the main branch.
        file: inside the repository.
    """

    repository: str
    revision: str | None = None
    file: str = FILE

    @classmethod
    def parse(cls, argument: str, text: object) -> Address:
        """Read an address; the scheme in front may be left out.

        Raises:
            ValueError: if it is none.
        """
        match = _ADDRESS.fullmatch(text.removeprefix(SCHEME)) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{argument}: expected {SCHEME}owner/name, or {SCHEME}owner/name@revision, got {text!r}")
        repository, revision, file = match.groups()
        return cls(repository, None if revision is None else unquote(revision), file or FILE)

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"{SCHEME}{self.repository}{revision}{'' if self.file == FILE else f'/{self.file}'}"


def client(hub: HubLike | None, what: str) -> HubLike:
    """The client that is given, or else one with the settings of the machine.

    Raises:
        ImportError: if huggingface_hub is not installed.
    """
    if hub is not None:
        return hub
    with needs(what, "hub"):
        from huggingface_hub import HfApi
    api: HubLike = HfApi(library_name="ppl_buffer")
    return api


def fetch(text: str, hub: HubLike | None = None) -> Path:
    """The file of a network, from the hub's cache or fetched into it.

    Args:
        text: its address.
        hub: a client; None = one with the settings of the machine.

    Raises:
        ValueError: if it is no address.
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ImportError: if huggingface_hub is not installed.
    """
    address = Address.parse("name_or_path", text)
    api = client(hub, "an address that begins with hf://")
    try:
        return Path(api.hf_hub_download(address.repository, address.file, revision=address.revision))
    except (OSError, ValueError) as error:  # no network, no such repository, revision or file, no permission
        said = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise FileNotFoundError(f"name_or_path: {address} could not be fetched ({said})") from error
