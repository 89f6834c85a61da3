"""Finds out why a captured request is refused, by trying what may have happened to it. Pure: no clock and no network.

See the guide, "Signature Verification Fails".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from envoyou_core.errors import WebhookError
from envoyou_core.http import (
    EVENT_TYPE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    WEBHOOK_ID_HEADER,
)
from envoyou_core.reception.captures import Capture
from envoyou_core.reception.rewrites import rewritten_bodies
from envoyou_core.reception.rewritten_times import epoch_seconds, find_signed_time
from envoyou_core.reception.signature import (
    SIGNED_CONTENT_FORMS,
    Secret,
    SigningKey,
    is_signed,
    signing_keys,
)
from envoyou_core.reception.verification import VerificationPolicy

__all__ = ["Cause", "Diagnosis", "diagnose"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a refusal.

    Attributes:
        name: a stable word.
        text: what is wrong with this request.
        remedy: what to do.
    """

    name: str
    text: str
    remedy: str


@dataclass(slots=True)
class Diagnosis:
    """Whether a request verifies, and if not, why.

    Attributes:
        error: the error with which it is refused; `None` if it verifies.
        causes: the reasons that were found. The last one says so if no signature could be reproduced.
        notes: what else is worth knowing, such as the secret that has signed it.
    """

    error: WebhookError | None = None
    causes: list[Cause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, text: str, remedy: str) -> None:
        """Add a cause."""
        self.causes.append(Cause(name, text, remedy))


KEEP_HEADERS: Final = "pass the X-EnvoyOU- headers on as they are"
KEEP_BODY: Final = "verify the bytes of the body as they came, before anything parses them"
LEAVE_OUT: Final = "let the proxy or middleware that compresses requests leave this path out"

_VALUE_OF: Final = {
    SIGNATURE_HEADER: re.compile(rb"v1,[0-9a-f]{64}").fullmatch,
    TIMESTAMP_HEADER: re.compile(rb"[0-9]{9,12}").fullmatch,
    WEBHOOK_ID_HEADER: re.compile(rb"wh_\S+").fullmatch,
    EVENT_TYPE_HEADER: re.compile(rb"[a-z_]+(\.[a-z_]+)+").fullmatch,
    NONCE_HEADER: re.compile(rb"\S{8,}").fullmatch,
}
"""What the value of each header looks like, to find it under another name."""

_KNOWN_NAMES: Final = frozenset(name.lower() for name in _VALUE_OF)


def diagnose(capture: Capture, *, secrets: Sequence[Secret], policy: VerificationPolicy, now: float) -> Diagnosis:
    """Verify a captured request, and if it is refused, find out why.

    Args:
        capture: the request.
        secrets: the accepted secrets, newest first.
        policy: the settings of verification.
        now: when it was received, in epoch seconds.

    Raises:
        ConfigurationError: there is no secret, or an invalid one.
    """
    keys = signing_keys(list(secrets))
    found = Diagnosis()
    try:
        request = capture.request()
        policy.authenticate(request, keys, now=now)
        policy.read_event(request)
    except WebhookError as error:
        found.error = error
    signature, timestamp = _check_headers(capture, policy, found)
    _check_clock(timestamp, policy, now, found)
    _check_length(capture, found)
    if signature and timestamp:
        _check_signature(capture, secrets, keys, policy, signature, timestamp, now, found)
    if found.error is not None and not found.causes:
        found.add(found.error.reason, found.error.detail, "see Troubleshooting in the documentation")
    return found


def _check_headers(capture: Capture, policy: VerificationPolicy, found: Diagnosis) -> tuple[bytes, bytes]:
    """Report headers that are missing, renamed or doubled. Returns the signature and the timestamp as far as known."""
    values = {}
    for name in _VALUE_OF:
        given = [value for value in capture.values(name) if value]
        if not given:
            if name in policy.required_headers:
                values[name] = _check_missing(capture, name, found)
            continue
        values[name] = given[0]
        parts = [part for value in given for part in _parts(name, value)]
        if len(parts) > 1:
            values[name] = parts[0]
            found.add(
                "header_doubled",
                f"the header {name} came {len(parts)} times, {'all alike' if len(set(parts)) == 1 else 'with others'}",
                f"a proxy adds it to the one that came: let it set the header or leave it, but {KEEP_HEADERS}",
            )
        elif name == SIGNATURE_HEADER and not _VALUE_OF[name](given[0]):
            found.add(
                "signature_malformed",
                f"the value of {name} is not v1, and 64 lower-case hexadecimal digits",
                f"something changes the header: {KEEP_HEADERS}",
            )
            values[name] = given[0].strip(b"\"' ").lower()
    return values.get(SIGNATURE_HEADER, b""), values.get(TIMESTAMP_HEADER, b"")


def _parts(name: str, value: bytes) -> list[bytes]:
    # The comma of a signature belongs to it, and so does that of a date.
    if name == SIGNATURE_HEADER:
        return re.findall(rb"v1,[0-9a-fA-F]+", value) or [value]
    if name == TIMESTAMP_HEADER and epoch_seconds(value) is not None:
        return [value]
    return [part.strip() for part in value.split(b",") if part.strip()]


def _check_missing(capture: Capture, name: str, found: Diagnosis) -> bytes:
    for other, value in capture.headers:
        if other.lower() not in _KNOWN_NAMES and (_is_other_name(other, name) or _is_value(name, other, value)):
            found.add(
                "header_renamed",
                f"the header {name} is missing, and {other} has its value",
                f"a proxy renames it: {KEEP_HEADERS}",
            )
            return value
    found.add(
        "header_missing",
        f"the header {name} is missing",
        f"a proxy removes it, or the request is not EnvoyOU's: {KEEP_HEADERS}",
    )
    return b""


def _is_other_name(other: str, name: str) -> bool:
    squeezed = re.sub(r"[^a-z]", "", other.lower())
    return squeezed.endswith(re.sub(r"[^a-z]", "", name.lower()).removeprefix("x"))


def _is_value(name: str, other: str, value: bytes) -> bool:
    # Anything else than a signature may look alike by chance.
    has_last_word = name.rpartition("-")[2].lower() in other.lower()
    return bool(_VALUE_OF[name](value)) and (name == SIGNATURE_HEADER or has_last_word)


def _report_rewritten_time(
    timestamp: bytes, signed_at: int, policy: VerificationPolicy, now: float, found: Diagnosis
) -> None:
    # What was said of the value that is not the sender's explains nothing.
    found.causes = [cause for cause in found.causes if cause.name not in {"clock", "timestamp_malformed"}]
    given = epoch_seconds(timestamp)
    if given == signed_at:
        difference = "which is the same time in another form"
    elif given is None:
        difference = "and the header has something else"
    else:
        difference = f"which is {abs(given - signed_at)} s {'earlier' if signed_at < given else 'later'}"
    found.add(
        "timestamp_rewritten",
        f"the value of {TIMESTAMP_HEADER} was replaced: it would verify with {signed_at}, {difference}",
        f"a proxy or middleware sets its own time: {KEEP_HEADERS}",
    )
    _check_clock(b"%d" % signed_at, policy, now, found)


def _check_clock(timestamp: bytes, policy: VerificationPolicy, now: float, found: Diagnosis) -> None:
    if not timestamp:
        return
    if not timestamp.isdigit() or len(timestamp) > 12:
        found.add(
            "timestamp_malformed",
            f"the value of {TIMESTAMP_HEADER} is not a number of seconds",
            f"something changes the header: {KEEP_HEADERS}",
        )
        return
    seconds = now - int(timestamp)
    if abs(seconds) <= policy.tolerance:
        return
    place = "after" if seconds > 0 else "before"
    found.add(
        "clock",
        f"the clock is off by {abs(seconds):.0f} s: the request was received {place} it was signed, and the "
        f"tolerance is {policy.tolerance:.0f} s",
        "synchronize the clock of the receiving machine; if it is right, the request was delayed or is a replay. "
        "--at sets the time at which it was received",
    )


def _check_length(capture: Capture, found: Diagnosis) -> None:
    lengths = capture.values("Content-Length")
    length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) < 12 else None
    if not capture.body:
        announced = f", although Content-Length announces {length} bytes" if length else ""
        found.add(
            "body_empty",
            f"the body is empty{announced}",
            f"middleware or the framework has read it already: {KEEP_BODY}",
        )
    elif length is not None and length != len(capture.body):
        found.add(
            "body_length",
            f"the body has {len(capture.body)} bytes, and Content-Length announces {length}",
            "something cuts the body or changes it, or the capture is not complete",
        )


def _check_signature(
    capture: Capture,
    secrets: Sequence[Secret],
    keys: Sequence[SigningKey],
    policy: VerificationPolicy,
    signature: bytes,
    timestamp: bytes,
    now: float,
    found: Diagnosis,
) -> None:
    def signed_with(body: bytes, form: str, candidates: Sequence[SigningKey]) -> int | None:
        for number, key in enumerate(candidates, start=1):
            if is_signed(body, form, signature=signature, timestamp=timestamp, keys=[key]):  # type: ignore[arg-type]
                return number
        return None

    for form in SIGNED_CONTENT_FORMS:
        if (number := signed_with(capture.body, form, keys)) is None:
            continue
        which = f"secret {number} of {len(keys)}" if len(keys) > 1 else "the secret"
        found.notes.append(f"the {form} form of the body is signed with {which}")
        if form not in policy.signed_content:
            found.add(
                "canonical_form",
                "it would verify in the canonical form, which the setting signed_content does not accept",
                "accept both forms, or find out what re-serialises the body between EnvoyOU and the application",
            )
        return
    if not capture.body:
        return
    for kind, how, body in rewritten_bodies(capture.body):
        forms = ("raw", "canonical") if kind in {"compressed", "unicode", "encoding"} else ("raw",)
        if any(signed_with(body, form, keys) for form in forms):
            found.add(*_rewritten(kind, how))
            return
    for how, variant in _other_secrets(secrets):
        if any(signed_with(capture.body, form, [variant]) for form in SIGNED_CONTENT_FORMS):
            found.add(
                "secret_differs",
                f"it would verify with the secret {how}",
                "register the same secret with EnvoyOU that the application has, without additions",
            )
            return
    signed_at = find_signed_time(capture.body, signature=signature, timestamp=timestamp, keys=keys, now=now)
    if signed_at is not None:
        _report_rewritten_time(timestamp, signed_at, policy, now, found)
        return
    if found.causes and all(cause.name == "body_length" for cause in found.causes):
        return
    if encodings := [value.decode("latin-1") for value in capture.values("Content-Encoding") if value != b"identity"]:
        found.add(
            "body_compressed",
            f"the header Content-Encoding says {encodings[0]}, and the body could not be decompressed to one that "
            "verifies",
            LEAVE_OUT,
        )
        return
    found.add(
        "secret_or_content",
        f"no form of the body verifies with {'the secret' if len(keys) == 1 else f'any of the {len(keys)} secrets'}",
        "compare the secret with the one that is registered with EnvoyOU for this endpoint; if it is the same, the "
        "content of the body was changed, or the request is forged",
    )


def _rewritten(kind: str, how: str) -> tuple[str, str, str]:
    text = f"it would verify {how}"
    if kind == "json":
        return (
            "body_reserialised",
            f"the JSON of the body was written anew: {text}",
            f"a proxy or middleware parses the body and writes it again: {KEEP_BODY}",
        )
    if kind == "compressed":
        return (
            "body_compressed",
            f"the body was compressed after it was signed: {text}",
            LEAVE_OUT,
        )
    if kind == "decompressed":
        return (
            "body_decompressed",
            f"the body was decompressed after it was signed: {text}",
            f"a proxy or middleware decompresses requests: {KEEP_BODY}",
        )
    if kind == "unicode":
        return "unicode_normalised", f"the text of the body was normalised: {text}", KEEP_BODY
    if kind == "encoding":
        return "encoding_changed", f"the encoding of the body was changed: {text}", KEEP_BODY
    return "white_space", f"the white space around the body was changed: {text}", KEEP_BODY


def _other_secrets(secrets: Sequence[Secret]) -> Iterator[tuple[str, SigningKey]]:
    """Yield mistakes that are made when a secret is copied or read, and the keys that result."""
    for secret in secrets:
        key = secret.encode() if isinstance(secret, str) else secret
        changed = {
            "and a line feed at its end": key + b"\n",
            "and CR LF at its end": key + b"\r\n",
            "and a space at its end": key + b" ",
            "and a space before it": b" " + key,
            "in double quotes": b'"' + key + b'"',
            "in single quotes": b"'" + key + b"'",
            "without the prefix whsec_": key.removeprefix(b"whsec_"),
            "in lower case": key.lower(),
            "in upper case": key.upper(),
        }
        with suppress(ValueError):
            changed["decoded from base64"] = base64.b64decode(key.removeprefix(b"whsec_"), validate=True)
        yield from ((how, SigningKey(other)) for how, other in changed.items() if other.strip() and other != key)
