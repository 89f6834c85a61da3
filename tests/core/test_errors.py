"""The errors: their classes, codes and texts."""

import pytest

import envoyou_core
from envoyou_core import ConfigurationError, EnvoyouError, PermanentError, RetryLater, WebhookError, errors
from envoyou_core.errors import describe

WEBHOOK_ERRORS = [
    value
    for name in errors.__all__
    if issubclass(value := getattr(errors, name), WebhookError) and value is not WebhookError
]


def test_every_error_is_an_envoyou_error():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), EnvoyouError)
    assert not issubclass(ConfigurationError, WebhookError)


@pytest.mark.parametrize(
    ("name", "parent", "status", "code"),
    [
        ("WebhookVerificationError", "WebhookError", 401, "unauthorized"),
        ("MissingSignatureError", "WebhookVerificationError", 401, "unauthorized"),
        ("InvalidTimestampError", "WebhookVerificationError", 401, "unauthorized"),
        ("TimestampOutOfToleranceError", "WebhookVerificationError", 401, "unauthorized"),
        ("SignatureMismatchError", "WebhookVerificationError", 401, "unauthorized"),
        ("NonceReusedError", "WebhookVerificationError", 401, "unauthorized"),
        ("InvalidPayloadError", "WebhookError", 400, "invalid_payload"),
        ("MissingHeaderError", "InvalidPayloadError", 400, "missing_header"),
        ("HeaderMismatchError", "InvalidPayloadError", 400, "header_mismatch"),
    ],
)
def test_the_errors_have_the_promised_parents_and_codes(name, parent, status, code):
    error = getattr(envoyou_core, name)
    assert issubclass(error, getattr(envoyou_core, parent))
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize("error", WEBHOOK_ERRORS)
def test_each_error_has_a_default_text_and_a_unique_reason(error):
    assert str(error()) == error.default_message
    assert str(error("of this request")) == "of this request"
    assert error.reason == error.reason.lower().replace(" ", "_")
    assert [other for other in WEBHOOK_ERRORS if other.reason == error.reason] == [error]


def test_the_response_does_not_contain_the_reason_of_a_401_or_503():
    for error in WEBHOOK_ERRORS:
        message = error("of this request").public_message
        assert ("of this request" in message) is (error.status not in {401, 503})


@pytest.mark.parametrize("seconds", [0, 0.5, 60, 3_153_600_000])
def test_retry_later_has_its_seconds(seconds):
    error = RetryLater(seconds)
    assert error.seconds == seconds
    assert f"{seconds:g} s" in str(error)
    assert str(RetryLater(seconds, "rate limited")) == "rate limited"


@pytest.mark.parametrize("seconds", [-1, 1e10, float("inf"), float("nan")])
def test_retry_later_rejects_delays_out_of_range(seconds):
    with pytest.raises(ValueError, match="hundred years"):
        RetryLater(seconds)


def test_describe_returns_one_line():
    assert describe(ValueError("no\nDETAIL: very private")) == "ValueError: no"
    assert describe(KeyError()) == "KeyError"
    assert describe(PermanentError("gone")) == "PermanentError: gone"
    assert describe(RuntimeError("x" * 1000), longest=50) == "RuntimeError: " + "x" * 36
    assert len(describe(RuntimeError("x" * 1000))) == 500


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (ValueError("cut \x00 off"), "ValueError: cut \ufffd off"),
        (ValueError("half \ud83d a pair"), "ValueError: half \ufffd a pair"),
        (ValueError("\x1b[31mred"), "ValueError: \ufffd[31mred"),
        (ValueError("na\u00efve caf\u00e9 \U0001f600"), "ValueError: na\u00efve caf\u00e9 \U0001f600"),
        (ValueError("carriage\rreturn"), "ValueError: carriage"),
        (UnprintableError(), "UnprintableError"),
    ],
)
def test_describe_replaces_characters_that_databases_or_terminals_cannot_take(error, described):
    assert describe(error) == described
