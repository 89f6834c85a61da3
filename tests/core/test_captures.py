"""The directory of captures: its bounds, and what happens if it cannot be written."""

from pathlib import Path

import pytest

from envoyou_core import ConfigurationError, WebhookRequest, Webhooks
from envoyou_core.errors import SignatureMismatchError
from envoyou_core.observability import CaptureFailed
from envoyou_core.reception import captures
from envoyou_core.reception.captures import Capture, CaptureDirectory

HEADERS = [("Content-Type", "application/json"), ("X-Long", "x" * 40)]


def refused(body=b"{}", headers=HEADERS):
    return WebhookRequest.from_http("POST", headers, body, path="/a path")


def test_the_newest_are_kept_and_other_files_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "MAX_CAPTURES", 3)
    (tmp_path / "notes.http").write_text("mine")
    directory = CaptureDirectory(tmp_path)
    for second in range(5):
        directory.write(refused(b"%d" % second), SignatureMismatchError(), now=1000.0 + second)
    files = sorted(tmp_path.iterdir())
    assert [Capture.from_bytes(file.read_bytes()).body for file in files[:-1]] == [b"2", b"3", b"4"]
    assert files[-1].name == "notes.http"


def test_large_requests_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "MAX_CAPTURED_BODY", 10)
    monkeypatch.setattr(captures, "MAX_CAPTURED_HEADERS", 150)
    directory = CaptureDirectory(tmp_path / "new" / "directory")
    directory.write(refused(b"x" * 11), SignatureMismatchError(), now=1.0)
    assert not (tmp_path / "new").exists()
    directory.write(refused(b"x" * 10, HEADERS * 10), SignatureMismatchError(), now=1.0)
    [file] = (tmp_path / "new" / "directory").iterdir()
    capture = Capture.from_bytes(file.read_bytes())
    assert (capture.body, capture.path, capture.received_at) == (b"x" * 10, "/a%20path", 1.0)
    assert len(file.read_bytes()) < 170


def test_a_header_cannot_forge_a_line(tmp_path):
    directory = CaptureDirectory(tmp_path)
    directory.write(refused(headers=[("X-EnvoyOU-Nonce", "a\r\nX-Other: b")]), SignatureMismatchError(), now=1.0)
    [file] = tmp_path.iterdir()
    assert [name for name, _ in Capture.from_bytes(file.read_bytes()).headers] == ["X-EnvoyOU-Nonce"]


def test_a_directory_that_cannot_be_written_is_reported_and_changes_no_answer(tmp_path):
    (tmp_path / "file").write_text("")
    webhooks = Webhooks(
        secret="whsec_test", inbox="memory:", handoff="manual", capture_rejected=tmp_path / "file" / "directory"
    )
    notices = []
    webhooks.subscribe(notices.append)
    assert webhooks.receive(refused()).status == 401
    [failed] = [notice for notice in notices if isinstance(notice, CaptureFailed)]
    assert failed.detail.startswith("NotADirectoryError")


@pytest.mark.parametrize("value", ["", 1, b"bytes"])
def test_the_setting_must_be_a_path(value):
    with pytest.raises(ConfigurationError, match="capture_rejected must be the path of a directory"):
        Webhooks(secret="whsec_test", inbox="memory:", capture_rejected=value)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b"POST / HTTP/1.1\r\nno header\r\n\r\n{}"])
def test_something_else_is_no_capture(content):
    with pytest.raises(ConfigurationError, match=r"must begin with a request line|expected a header"):
        Capture.from_bytes(content)


def test_the_path_may_be_an_object():
    Webhooks(secret="whsec_test", inbox="memory:", capture_rejected=Path("captures"))
