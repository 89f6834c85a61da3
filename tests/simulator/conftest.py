"""A platform, and requests to its management API."""

import json
from dataclasses import dataclass, field
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from envoyou_core.simulator import Platform

URL = "http://127.0.0.1:9/webhooks/envoyou"


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict
    text: str = field(repr=False)

    @property
    def json(self):
        return json.loads(self.text)


def call(platform, method, path, document=None, *, key=None, body=None, headers=None):
    """Call the API at `path`, which is below the platform's root, with the key unless there are other headers."""
    data = json.dumps(document).encode() if document is not None else body
    root = platform.base_url.removesuffix("/v1")
    given = {"Authorization": f"Bearer {key or platform.api_key}"} if headers is None else headers
    try:
        with urlopen(Request(root + path, data, given, method=method), timeout=10) as answer:
            return Response(answer.status, dict(answer.headers), answer.read().decode())
    except HTTPError as error:
        with error:
            return Response(error.code, dict(error.headers), error.read().decode())


@pytest.fixture(scope="module")
def platform():
    with Platform() as platform:
        yield platform


@pytest.fixture(scope="module")
def api(platform):
    return lambda *arguments, **options: call(platform, *arguments, **options)
