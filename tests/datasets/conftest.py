import pytest


@pytest.fixture(autouse=True)
def no_folder_of_data(monkeypatch):
    monkeypatch.setenv("PPL_BUFFER_DATA", "")
