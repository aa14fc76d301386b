"""A hub of networks in a folder."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Commit:
    oid: str


@dataclass
class FolderHub:
    """A hub in a folder: a subfolder a repository, in it one a commit, named by its number."""

    folder: Path
    asked: list = field(default_factory=list)

    def create_repo(self, repo_id, *, private, exist_ok):
        self.asked.append((repo_id, private))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert commit_message
        name = f"c{len(list((self.folder / repo_id).iterdir()))}"
        shutil.copytree(folder_path, self.folder / repo_id / name)
        return Commit(name)

    def hf_hub_download(self, repo_id, filename, *, revision):
        newest = f"c{len(list((self.folder / repo_id).iterdir())) - 1}"
        path = self.folder / repo_id / (revision or newest) / filename
        if not path.is_file():
            raise FileNotFoundError(f"\nnothing at {revision}\nand more")
        return str(path)
