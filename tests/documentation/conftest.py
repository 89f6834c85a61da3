"""Selects the tests of the chosen adapters, and makes readers."""

import shutil

import pytest

from tests.adapters import chosen
from tests.documentation.launchers import Forks, Shell
from tests.documentation.pages import QUICKSTARTS, README
from tests.documentation.reader import Reader, own_environment, shared_environment

collect_ignore = [] if chosen() else ["test_quickstarts.py", "test_examples.py"]

SECRET = "whsec_your_webhook_secret_key"

SEED = f"""
import logging

from envoyou_core import WebhookRequest
from envoyou_core.testing import sample_event, sign_delivery
from hooks import webhooks

logging.disable()
for event in (
    sample_event("user.created"),
    sample_event("auth.login"),
    sample_event("user.created", id="evt_1234567890", object={{"id": "user_1234567890"}}),
    b'{{"id": "evt_of_a_new_shape", "kind": "user.created"}}',
):
    delivery = sign_delivery(event, secret="{SECRET}")
    webhooks.receive(WebhookRequest.from_http("POST", delivery.headers, delivery.body))
webhooks.drain(until_idle=True)
"""
"""Stores an event that is processed, one that is ignored, one that is dead, and a rejected delivery."""


@pytest.fixture(scope="session")
def forks():
    """Starts commands without the time for their imports."""
    forks = Forks(shared_environment() / "python")
    yield forks
    forks.close()


@pytest.fixture
def new_reader(tmp_path):
    """A reader in an empty directory and a new virtual environment, in which nothing is installed."""
    reader = Reader(tmp_path, own_environment(tmp_path / "environment"), Shell(), installs=True)
    yield reader
    reader.leave()


@pytest.fixture
def reader(tmp_path, forks):
    """A reader in an empty directory, in the environment of the tests."""
    reader = Reader(tmp_path, shared_environment(), forks)
    yield reader
    reader.leave()


@pytest.fixture(scope="session")
def application(tmp_path_factory, forks):
    """A directory in which the quickstart of FastAPI was followed: its inbox has events."""
    reader = Reader(tmp_path_factory.mktemp("application"), shared_environment(), forks)
    for block in README.blocks("Quickstart: FastAPI"):
        if block.file == "hooks.py" or (block.file and "fastapi" in chosen()):
            reader.write(block.file, block.code)
    exports = {"WEBHOOK_SECRET": SECRET, "HANDOFF": "manual", "RETRY_DELAYS": "0,0"}
    reader.type("\n".join(f"export ENVOYOU_{name}={value}" for name, value in exports.items()))
    reader.execute(SEED)
    reader.leave()
    return reader.folder


@pytest.fixture(scope="session")
def django_project(tmp_path_factory, forks):
    """A directory in which the quickstart of Django was followed."""
    reader = Reader(tmp_path_factory.mktemp("django"), shared_environment(), forks)
    reader.type(f"export ENVOYOU_WEBHOOK_SECRET={SECRET}")
    for block in README.blocks(f"Quickstart: {QUICKSTARTS['django']}"):
        if block.file:
            reader.write(block.file, block.code, adds=block.adds)
        elif block.language == "console":
            without_server = [
                line for line in block.code.splitlines() if "runserver" not in line and "trigger" not in line
            ]
            reader.type("\n".join(without_server))
    reader.leave()
    return reader.folder


@pytest.fixture
def continue_from(reader, request):
    """Give the reader the directories of those who have done quickstarts, and what they have exported."""

    def continue_from(*fixtures):
        for fixture in fixtures:
            shutil.copytree(request.getfixturevalue(fixture), reader.folder, dirs_exist_ok=True)
        reader.type(f"export ENVOYOU_WEBHOOK_SECRET={SECRET}")

    return continue_from
