"""The fixtures of `tests.text_node` under shorter names."""

import pytest


@pytest.fixture
def node(text_node):
    return text_node


@pytest.fixture
def new_client(new_text_client):
    return new_text_client


@pytest.fixture
def client(new_client):
    return new_client()


@pytest.fixture
def new_worker(new_text_worker):
    return new_text_worker


@pytest.fixture
def worker(new_worker):
    return new_worker()


@pytest.fixture
def worker_key(text_worker_key):
    return text_worker_key
