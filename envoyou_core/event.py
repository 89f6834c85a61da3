"""The event: strict parsing of a verified body, and the catalogue of event types.

The payload is decoded when it is first accessed. See the guide, "Webhook Payload Structure".
"""

from __future__ import annotations

import builtins
import hashlib
import struct
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, cast

import msgspec

from envoyou_core.errors import InvalidPayloadError
from envoyou_core.object_types import convert_object
from envoyou_core.reception.strict_json import load_json

__all__ = [
    "EVENT_TYPES",
    "MAX_CREATED",
    "MAX_NAME_LENGTH",
    "Event",
    "EventData",
    "Location",
    "Login",
    "UnreadableData",
    "User",
    "object_key",
]

# Strings instead of an enum: the platform may add a type at any time, and events of an unknown type must be accepted
# and stored too.
EVENT_TYPES: tuple[str, ...] = (
    "user.created",
    "user.updated",
    "user.deleted",
    "user.verified",
    "auth.login",
    "auth.logout",
    "auth.failed",
    "auth.password_reset",
    "api.rate_limit_exceeded",
    "api.quota_exceeded",
    "api.key_expired",
    "system.maintenance_start",
    "system.maintenance_end",
    "system.incident",
)
"""The event types of the guide, "Supported Events", in its order."""

MAX_NAME_LENGTH = 255
"""The maximum length of an event's id, type and webhook id, in characters."""

MAX_CREATED = 253_402_300_799
"""The last second of the year 9999, in epoch seconds: the maximum of `datetime`."""

_T = TypeVar("_T")

if TYPE_CHECKING:
    # The default makes the object of a plain `Event` a mapping for type checkers. Python supports defaults from 3.13
    # on; type checkers know this module even if it is not installed.
    from typing_extensions import TypeVar as TypeVarWithDefault

    ObjectT = TypeVarWithDefault("ObjectT", default=dict[str, Any])
else:
    ObjectT = TypeVar("ObjectT")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The object of a `user.*` event, as in the guide, "User Created Event". Unknown fields are ignored."""

    id: str
    email: str | None = None
    name: str | None = None
    email_verified: bool | None = None
    status: str | None = None
    created_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """The location of a login."""

    country: str | None = None
    city: str | None = None


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The object of an `auth.*` event, as in the guide, "Authentication Events". Unknown fields are ignored."""

    user_id: str
    ip_address: str | None = None
    user_agent: str | None = None
    timestamp: datetime | None = None
    location: Location | None = None


# A struct, because one is made for each delivery, and an object of a plain class costs more.
class EventData(msgspec.Struct, Generic[ObjectT], eq=False):
    """The `data` member of an event. Its `object` is decoded when it is first accessed."""

    _raw: bytes | msgspec.Raw
    _mapping: dict[str, Any] | None = None
    _object: ObjectT | None = None
    _is_readable: bool = True

    @property
    def object(self) -> ObjectT:
        """The object that the event is about: a plain mapping, or an instance of the type given to `Event.typed_as`.

        Raises:
            InvalidPayloadError: Python's JSON decoder rejects it, for example because of an integer with more than 4300
                digits.
        """
        return cast(ObjectT, self._as_mapping()) if self._object is None else self._object

    def as_type(self, type_: type[_T]) -> _T:
        """Convert the object to `type_`: `User`, `Login`, or a type of your own.

        Args:
            type_: a msgspec Struct, a dataclass, a TypedDict, or a Pydantic model.

        Raises:
            InvalidPayloadError: the object does not match the type, or the type's own validation failed. The message
                names the field and contains no data of the event.
            ConfigurationError: objects cannot be converted to `type_`.
        """
        return convert_object(self._as_mapping(), type_)

    def typed_as(self, type_: type[_T]) -> EventData[_T]:
        """Return a copy whose object is converted to `type_`. See `as_type`."""
        return EventData(self._raw, self._mapping, self.as_type(type_))

    def _as_mapping(self) -> dict[str, Any]:
        if not self._is_readable:
            raise InvalidPayloadError("data.object contains an integer with too many digits for Python")
        if self._mapping is None:
            self._mapping = _decode_object(self._raw)
        return self._mapping

    def identity(self) -> str | None:
        """Return the object's `id` or else `user_id`, as text, without decoding the rest; `None` if it has neither."""
        try:
            candidates = self._ids()
        except InvalidPayloadError:
            return None
        for candidate in candidates:
            if _is_identity(candidate):
                return str(candidate)
        return None

    def _ids(self) -> tuple[builtins.object, builtins.object]:
        if self._mapping is None:
            try:
                identity = _decode_identity(self._raw)
            except (msgspec.DecodeError, RecursionError):
                pass
            else:
                return identity.id, identity.user_id
        mapping = self._as_mapping() if self._mapping is None else self._mapping
        return mapping.get("id"), mapping.get("user_id")

    def __repr__(self) -> str:
        # The payload contains e-mail and IP addresses, which must not be logged.
        return "EventData(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class UnreadableData(EventData[dict[str, Any]]):
    """The `data` member of a stored event whose row is unreadable. Every access raises `InvalidPayloadError`."""

    _reason: str = ""

    @classmethod
    def because(cls, reason: str) -> UnreadableData:
        """Create one that says why the row is unreadable."""
        return cls(b"", _reason=reason)

    def _as_mapping(self) -> dict[str, Any]:
        raise InvalidPayloadError(f"the stored event is unreadable: {self._reason}")


class _EnvelopeData(msgspec.Struct, gc=False):
    object: msgspec.Raw


class _Envelope(msgspec.Struct, gc=False):
    id: str
    type: str
    created: int
    data: _EnvelopeData
    webhook_id: str | None = None


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]


class _BoundedEnvelope(_Envelope, gc=False):
    """An envelope whose values are in range."""

    id: _Name
    type: _Name
    created: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREATED)]
    webhook_id: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)] | None = None


class _Identity(msgspec.Struct):
    id: str | int | None = None
    user_id: str | int | None = None


_BRACE = (b"{",)
_first_byte = struct.Struct("c").unpack_from
_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_bounded_envelope = msgspec.json.Decoder(_BoundedEnvelope).decode
_decode_json = msgspec.json.Decoder().decode


class Event(msgspec.Struct, Generic[ObjectT], frozen=True, kw_only=True):
    """An event of the platform. `id` is its idempotency key.

    The `data.object` of an `Event[MyModel]` is a `MyModel`; that of a plain `Event` is a mapping.

    Attributes:
        id: the event's id (`evt_...`), 1 to 255 characters.
        type: the event type, such as `user.created`; not necessarily one of `EVENT_TYPES`.
        created: when the event was created, in epoch seconds, as sent.
        data: holds the object that the event is about, as `data.object`.
        webhook_id: the endpoint's id (`wh_...`), if the body has it.
        body: the verified bytes, exactly as received.
    """

    id: str
    type: str
    created: int
    data: EventData[ObjectT]
    webhook_id: str | None
    body: bytes

    @classmethod
    def from_body(cls, body: bytes) -> Event:
        """Parse `body` strictly. See the guide, "Webhook Payload Structure".

        Unknown types, additional members and lone surrogate escapes in the payload are accepted.

        Raises:
            InvalidPayloadError: the body is not UTF-8, not JSON, nested too deeply, or not an event, or a value is out
                of range.
        """
        return parse_event(body)

    def typed_as(self, type_: builtins.type[_T]) -> Event[_T]:
        """Return a copy of the event with `data.object` converted to `type_`.

        Args:
            type_: a msgspec Struct, a dataclass, a TypedDict, or a Pydantic model.

        Raises:
            InvalidPayloadError: the object does not match the type.
            ConfigurationError: objects cannot be converted to `type_`.
        """
        return cast("Event[_T]", msgspec.structs.replace(self, data=self.data.typed_as(type_)))

    @property
    def created_at(self) -> datetime:
        """`created` as an aware datetime, in UTC."""
        return datetime.fromtimestamp(self.created, UTC)

    @property
    def object_id(self) -> str | None:
        """The id of the object: `data.object.id`, else `data.object.user_id`, as text; `None` if it has neither.

        A long or unprintable id is replaced by its SHA-256, as everywhere in the inbox. See `object_key`.
        """
        identity = self.data.identity()
        return None if identity is None else object_key(identity)

    # All attributes are derived from the body, and `data` cannot be compared before it is decoded.

    def __eq__(self, other: object) -> bool:
        return self.body == other.body if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        return f"Event(id={self.id!r}, type={self.type!r}, created={self.created})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own shows the body.
        return [("id", self.id), ("type", self.type), ("created", self.created)]


def parse_event(body: bytes) -> Event:
    """Parse `body`. See `Event.from_body`; a function takes less time to call than a class method."""
    try:
        envelope: _Envelope = _decode_bounded_envelope(body)
        raw, webhook_id = envelope.data.object, envelope.webhook_id
        is_usual = (
            # The decoder skips the payload without checking its encoding.
            (body.isascii() or _is_utf8(body))
            and _first_byte(raw) == _BRACE
            and envelope.id.isprintable()
            and envelope.type.isprintable()
            and (webhook_id is None or webhook_id.isprintable())
        )
    except (msgspec.DecodeError, RecursionError, ValueError):
        is_usual = False
    if is_usual:
        # A view of the body, which may be large.
        data: EventData[dict[str, Any]] = EventData(raw)
    else:
        envelope, data = _parse_strictly(body)
    return Event(
        id=envelope.id,
        type=envelope.type,
        created=envelope.created,
        data=data,
        webhook_id=envelope.webhook_id,
        body=body,
    )


def _is_utf8(body: bytes) -> bool:
    body.decode("utf-8")
    return True


def _parse_strictly(body: bytes) -> tuple[_Envelope, EventData]:
    """Parse a body that the fast path does not accept, and say what is wrong with it, if anything is."""
    envelope, data = _parse(body)
    _check_name("id", envelope.id, min_length=1)
    _check_name("type", envelope.type, min_length=1)
    if envelope.webhook_id is not None:
        _check_name("webhook_id", envelope.webhook_id, min_length=0)
    if not 0 <= envelope.created <= MAX_CREATED:
        raise InvalidPayloadError(f"created must be from 0 to {MAX_CREATED}")
    return envelope, data


def _parse(body: bytes) -> tuple[_Envelope, EventData]:
    try:
        # The decoder skips the payload without checking its encoding.
        if not body.isascii():
            body.decode("utf-8")
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as error:
        raise InvalidPayloadError(f"the body is not an event: {error}") from None
    except UnicodeDecodeError:
        raise InvalidPayloadError("the body is not UTF-8") from None
    except RecursionError:
        raise InvalidPayloadError("the body is nested too deeply") from None
    except msgspec.DecodeError:
        return _parse_leniently(body)
    raw = envelope.data.object
    if _first_byte(raw) != _BRACE:
        raise InvalidPayloadError("data.object must be an object")
    return envelope, EventData(raw)


def _parse_leniently(body: bytes) -> tuple[_Envelope, EventData]:
    """Parse a body that msgspec rejects for half of a surrogate pair, as JavaScript leaves when it cuts a string."""
    document = _load_leniently(body, read_integer=_read_integer)
    try:
        data = document["data"]["object"]
        # Only the known members: msgspec rejects half of a surrogate pair in a member's name as well.
        members = {name: document[name] for name in _Envelope.__struct_fields__ if name in document}
        envelope = msgspec.convert({**members, "data": {"object": msgspec.Raw()}}, _Envelope)
    except (TypeError, LookupError, ValueError, msgspec.ValidationError):
        # ValueError includes UnicodeEncodeError, which msgspec raises when it tries to read a text as a number.
        raise InvalidPayloadError("the body is not an event") from None
    if not isinstance(data, dict):
        raise InvalidPayloadError("data.object must be an object")
    return envelope, EventData(b"", data, _is_readable=all(value is not _UNREADABLE for value in _values_in(data)))


_UNREADABLE = object()
"""Replaces an integer with too many digits for Python. The event is accepted; reading `data.object` raises an error."""


def _read_integer(digits: str) -> object:
    try:
        return int(digits)
    except ValueError:
        return _UNREADABLE


def _values_in(document: object) -> Iterator[object]:
    """Yield every value in `document`, at any depth."""
    stack = [document]
    while stack:
        value = stack.pop()
        yield value
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _decode_object(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = _decode_json(raw)
    except RecursionError:
        raise InvalidPayloadError("data.object is nested too deeply") from None
    except msgspec.DecodeError:
        decoded = _load_leniently(bytes(raw))
    return decoded


def _load_leniently(document: bytes, *, read_integer: Callable[[str], object] = int) -> Any:
    try:
        return load_json(document, read_integer=read_integer)
    except ValueError as error:
        raise InvalidPayloadError(f"the body is not JSON: {error}") from None


def _check_name(member: str, value: str, *, min_length: int) -> None:
    if not min_length <= len(value) <= MAX_NAME_LENGTH:
        raise InvalidPayloadError(f"{member} must have {min_length} to {MAX_NAME_LENGTH} characters")
    if not is_plain_text(value):
        raise InvalidPayloadError(f"{member} must have no control characters")


def _is_identity(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def object_key(object_id: str) -> str:
    """Return an object's id in the form that the inbox stores: a long or unprintable id is replaced by its SHA-256.

    So is an empty id, because a database may store a missing id as an empty text.
    """
    if 0 < len(object_id) <= MAX_NAME_LENGTH and is_plain_text(object_id):
        return object_id
    return "sha256:" + hashlib.sha256(object_id.encode("utf-8", "surrogatepass")).hexdigest()


def is_plain_text(value: str) -> bool:
    """Whether `value` has no control characters and no lone surrogates, so that every database can store it."""
    return value.isprintable() or not any(unicodedata.category(c) in {"Cc", "Cs"} for c in value)
