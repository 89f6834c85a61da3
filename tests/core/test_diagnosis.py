"""Why a captured request is refused: causes that need no server to be shown."""

import pytest

from envoyou_core.reception.captures import Capture
from envoyou_core.reception.diagnosis import diagnose
from envoyou_core.reception.verification import VerificationPolicy
from envoyou_core.testing import sample_event, sign_delivery

SECRET = "whsec_of_the_diagnosis_tests"
NOW = 1_796_000_000
UNKNOWN = b"v1," + b"0" * 64


def found(body=None, **headers):
    """The causes for a signed delivery with other headers, by their names in lower case, and perhaps another body."""
    delivery = sign_delivery(sample_event(), secret=SECRET, timestamp=NOW)
    given = {name: value.encode() for name, value in delivery.headers.items()}
    given |= {f"X-EnvoyOU-{name.title()}": value for name, value in headers.items()}
    pairs = tuple((name, value) for name, value in given.items() if value is not None)
    pairs += (("Content-Length", str(len(delivery.body)).encode()),)
    capture = Capture("POST", "/", pairs, delivery.body if body is None else body(delivery.body))
    diagnosis = diagnose(capture, secrets=[SECRET], policy=VerificationPolicy(), now=NOW)
    return {cause.name: cause.text for cause in diagnosis.causes}, diagnosis


def test_a_request_that_is_accepted_has_no_cause():
    causes, diagnosis = found()
    assert (causes, diagnosis.error) == ({}, None)
    assert diagnosis.notes == ["the raw form of the body is signed with the secret"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"signature": b"v1,ABC"}, {"signature_malformed", "secret_or_content"}),
        ({"timestamp": b"yesterday", "signature": UNKNOWN}, {"timestamp_malformed", "secret_or_content"}),
        ({"timestamp": b"1" * 13, "signature": UNKNOWN}, {"timestamp_malformed", "secret_or_content"}),
        ({"timestamp": b"yesterday"}, {"timestamp_rewritten"}),
        ({"timestamp": None}, {"header_missing"}),
        ({"signature": None}, {"header_missing"}),
    ],
    ids=[
        "signature too short",
        "timestamp no number",
        "timestamp too long",
        "timestamp replaced",
        "no timestamp",
        "no signature",
    ],
)
def test_headers_that_cannot_be_used(headers, expected):
    causes, diagnosis = found(**headers)
    assert causes.keys() == expected
    assert diagnosis.error is not None


def test_a_body_that_was_cut_is_not_blamed_on_the_secret():
    causes, _ = found(lambda body: body[:-1])
    assert causes.keys() == {"body_length"}


def test_a_refusal_that_verification_does_not_explain_has_its_own_reason():
    delivery = sign_delivery(b"{}", secret=SECRET, timestamp=NOW)
    capture = Capture("POST", "/", tuple((name, value.encode()) for name, value in delivery.headers.items()), b"{}")
    diagnosis = diagnose(capture, secrets=[SECRET], policy=VerificationPolicy(required_headers=()), now=NOW)
    assert [cause.name for cause in diagnosis.causes] == [diagnosis.error.reason]
