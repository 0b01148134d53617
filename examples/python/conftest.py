import pytest

from onedelete import Gateway, Mocks


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tenants").mkdir()
    return tmp_path


@pytest.fixture
def mocks(folder):
    with Mocks(folder / "tenants" / "mock.toml", "kore_ai", "wethod") as mocks:
        yield mocks


@pytest.fixture
def gateway(folder, mocks):
    with Gateway(folder, mocks.key) as gateway:
        yield gateway
