"""The directory of `capture_rejected`: refused requests are written there, without secrets."""

from __future__ import annotations

from pathlib import Path

from envoyou_core import Handlers
from envoyou_core.reception.captures import Capture
from envoyou_core.reception.diagnosis import diagnose
from envoyou_core.reception.verification import VerificationPolicy
from tests.contract.conftest import Serve
from tests.contract.endpoint import SECRET, clock, signed


def test_a_refused_request_is_captured(serve: Serve, tmp_path: Path) -> None:
    directory = tmp_path / "captures"
    endpoint = serve(
        Handlers(), clock=clock, capture_rejected=str(directory), endpoint_headers={"X-Shop": "a-secret-of-the-shop"}
    )
    delivery = signed(b'{"id": "evt_1"}')
    headers = {"X-Shop": "a-secret-of-the-shop", "Authorization": "Bearer a-token", "X-Anything": "a-private-value"}
    endpoint.accepts(signed(), headers=headers)
    assert not directory.exists()
    endpoint.refuses(400, "invalid_payload", delivery, headers=headers)
    endpoint.refuses(401, "unauthorized", signed(secret="whsec_of_another_sender"), headers=headers)
    unusable, forged = sorted(directory.iterdir())
    assert [file.stat().st_mode & 0o777 for file in (directory, unusable, forged)] == [0o700, 0o600, 0o600]
    content = unusable.read_bytes()
    assert content.endswith(b"\r\n\r\n" + delivery.body)
    capture = Capture.from_bytes(content)
    assert (capture.method, capture.values("X-EnvoyOU-Signature")) == (
        "POST",
        [delivery.headers["X-EnvoyOU-Signature"].encode()],
    )
    for secret in (b"a-secret-of-the-shop", b"a-token", b"a-private-value"):
        assert secret not in content
    for file, reason in ((unusable, "invalid_payload"), (forged, "signature_mismatch")):
        capture = Capture.from_bytes(file.read_bytes())
        found = diagnose(capture, secrets=[SECRET], policy=VerificationPolicy(), now=capture.received_at or 0)
        assert (found.error and found.error.reason, capture.received_at) == (reason, clock())
