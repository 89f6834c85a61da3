"""The event: strict parsing of a verified body, and the catalogue of types.

The envelope is decoded at the door, the payload only when someone asks for it. See the guide, "Webhook Payload
Structure".
"""

from __future__ import annotations

import builtins
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from envoyou_core.errors import ConfigurationError, InvalidPayloadError
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

# Strings and not an enum: the platform may add a type at any time, and an event of a type that this release does
# not know must be accepted and kept all the same.
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
"""The most characters that an event's id, type or webhook id may have."""

MAX_CREATED = 253_402_300_799
"""The last second of the year 9999, in epoch seconds: what `datetime` can still express."""

_T = TypeVar("_T")

if TYPE_CHECKING:
    # A default is what type checkers need: it makes of a plain `Event` one whose object is a mapping. Python has them
    # from 3.13 on, the checkers know this module without its being installed.
    from typing_extensions import TypeVar as TypeVarWithDefault

    ObjectT = TypeVarWithDefault("ObjectT", default=dict[str, Any])
else:
    ObjectT = TypeVar("ObjectT")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The object of a `user.*` event, as the guide's "User Created Event" shows it. Unknown fields are skipped."""

    id: str
    email: str | None = None
    name: str | None = None
    email_verified: bool | None = None
    status: str | None = None
    created_at: datetime | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Where a login came from."""

    country: str | None = None
    city: str | None = None


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The object of an `auth.*` event, as the guide's "Authentication Events" shows it. Unknown fields are skipped."""

    user_id: str
    ip_address: str | None = None
    user_agent: str | None = None
    timestamp: datetime | None = None
    location: Location | None = None


class EventData(Generic[ObjectT]):
    """The `data` member of an event; its `object` is decoded when it is first asked for."""

    __slots__ = ("_is_readable", "_mapping", "_object", "_raw")

    def __init__(
        self,
        raw: bytes,
        mapping: dict[str, Any] | None = None,
        object: ObjectT | None = None,
        *,
        is_readable: bool = True,
    ) -> None:
        self._raw = raw
        self._mapping = mapping
        self._object = object
        self._is_readable = is_readable

    @property
    def object(self) -> ObjectT:
        """What the event is about: a plain mapping, or what `Event.typed_as` has made of it.

        Raises:
            InvalidPayloadError: it holds something that Python's JSON decoder does not take, such as an integer of
                more than 4300 digits.
        """
        return cast(ObjectT, self._as_mapping()) if self._object is None else self._object

    def as_type(self, type_: type[_T]) -> _T:
        """The object as `type_`: `User`, `Login`, or a type of your own.

        Args:
            type_: a msgspec Struct, a dataclass, a TypedDict, or a Pydantic model.

        Raises:
            InvalidPayloadError: the object does not have that shape, or the type's own validation failed. The text
                names the field, and holds nothing of what was sent.
            ConfigurationError: `type_` is not a type that an object can be read as.
        """
        mapping = self._as_mapping()
        validate = getattr(type_, "model_validate", None)
        try:
            return msgspec.convert(mapping, type_) if validate is None else cast(_T, validate(mapping))
        except Exception as error:
            name = getattr(type_, "__name__", repr(type_))
            # Of what an object's own validation raises, msgspec makes an error of its own.
            if validate is None and isinstance(error, TypeError):
                raise ConfigurationError(f"data.object cannot be read as {name}: {error}") from None
            raise InvalidPayloadError(f"data.object is not a {name}: {_misfit(error, type_)}") from None

    def typed_as(self, type_: type[_T]) -> EventData[_T]:
        """The same, with the object as `type_`: see `as_type`."""
        return EventData(self._raw, self._mapping, self.as_type(type_))

    def _as_mapping(self) -> dict[str, Any]:
        if not self._is_readable:
            raise InvalidPayloadError("data.object holds an integer of more digits than Python reads")
        if self._mapping is None:
            self._mapping = _decode_object(self._raw)
        return self._mapping

    def identity(self) -> str | None:
        """The object's `id`, else its `user_id`, as text, without decoding the rest; `None` where neither is one."""
        try:
            named = self._named()
        except InvalidPayloadError:
            return None
        return next((str(found) for found in named if _is_identity(found)), None)

    def _named(self) -> tuple[builtins.object, builtins.object]:
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
        # The payload bears e-mail and IP addresses: it must not reach a log by way of a repr.
        return "EventData(...)"


class UnreadableData(EventData[dict[str, Any]]):
    """The `data` member of a stored event whose row is unreadable: every access raises.

    Args:
        reason: why it is unreadable.
    """

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(b"")
        self._reason = reason

    def _as_mapping(self) -> dict[str, Any]:
        raise InvalidPayloadError(f"the stored event is unreadable: {self._reason}")


class _EnvelopeData(msgspec.Struct):
    object: msgspec.Raw


class _Envelope(msgspec.Struct):
    id: str
    type: str
    created: int
    data: _EnvelopeData
    webhook_id: str | None = None


class _Identity(msgspec.Struct):
    id: str | int | None = None
    user_id: str | int | None = None


_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_json = msgspec.json.Decoder().decode


class Event(msgspec.Struct, Generic[ObjectT], frozen=True, kw_only=True):
    """One thing that happened on the platform. `id` is its idempotency key.

    `Event[MyModel]` is one whose `data.object` is a `MyModel`; of a plain `Event` it is a mapping.

    Attributes:
        id: the event's id (`evt_...`), 1 to 255 characters.
        type: what happened, such as `user.created`; may be a type that `EVENT_TYPES` does not list.
        created: when, in epoch seconds, as sent.
        data: `data.object` is what the event is about.
        webhook_id: the endpoint's id (`wh_...`) where the body names it.
        body: the verified bytes, exactly as they came.
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

        Unknown types and additional members are accepted; so is a lone surrogate escape in the payload.

        Raises:
            InvalidPayloadError: not UTF-8, not JSON, nested too deeply, not the shape of an event, or out of bounds.
        """
        envelope, data = _parse(body)
        _check_name("id", envelope.id, shortest=1)
        _check_name("type", envelope.type, shortest=1)
        if envelope.webhook_id is not None:
            _check_name("webhook_id", envelope.webhook_id, shortest=0)
        if not 0 <= envelope.created <= MAX_CREATED:
            raise InvalidPayloadError(f"created must be from 0 to {MAX_CREATED}")
        return cast("builtins.type[Event]", cls)(
            id=envelope.id,
            type=envelope.type,
            created=envelope.created,
            data=data,
            webhook_id=envelope.webhook_id,
            body=body,
        )

    def typed_as(self, type_: builtins.type[_T]) -> Event[_T]:
        """The same event, with `data.object` as `type_`: a msgspec Struct, a dataclass, a TypedDict, a Pydantic model.

        Raises:
            InvalidPayloadError: the object does not have that shape.
        """
        return cast("Event[_T]", msgspec.structs.replace(self, data=self.data.typed_as(type_)))

    @property
    def created_at(self) -> datetime:
        """`created` as an aware datetime, in UTC."""
        return datetime.fromtimestamp(self.created, UTC)

    @property
    def object_id(self) -> str | None:
        """What the event is about: `data.object.id`, else `data.object.user_id`, as text; `None` where neither is one.

        An id that is long or unprintable stands as its SHA-256, as everywhere in the inbox. See `object_key`.
        """
        found = self.data.identity()
        return None if found is None else object_key(found)

    # Everything else follows from the bytes, and `data` has no value to compare before it is decoded.

    def __eq__(self, other: object) -> bool:
        return self.body == other.body if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        return f"Event(id={self.id!r}, type={self.type!r}, created={self.created})"


def _parse(body: bytes) -> tuple[_Envelope, EventData]:
    try:
        # The decoder skips over the payload without looking at its encoding.
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
    raw = bytes(envelope.data.object)
    if not raw.startswith(b"{"):
        raise InvalidPayloadError("data.object must be an object")
    return envelope, EventData(raw)


def _parse_leniently(body: bytes) -> tuple[_Envelope, EventData]:
    """Half of a surrogate pair, as JavaScript leaves it when it cuts a string, is more than msgspec decodes."""
    document = _load_leniently(body, read_integer=_read_integer)
    try:
        data = document["data"]["object"]
        # Only the members that there is something to know of: msgspec takes no other name with such a half in it.
        members = {name: document[name] for name in _Envelope.__struct_fields__ if name in document}
        envelope = msgspec.convert({**members, "data": {"object": msgspec.Raw()}}, _Envelope)
    except (TypeError, LookupError, ValueError, msgspec.ValidationError):
        # A UnicodeEncodeError among them: msgspec looks for a number in a text.
        raise InvalidPayloadError("the body is not an event") from None
    if not isinstance(data, dict):
        raise InvalidPayloadError("data.object must be an object")
    return envelope, EventData(b"", data, is_readable=all(value is not _UNREADABLE for value in _values_in(data)))


_UNREADABLE = object()
"""What stands for an integer of more digits than Python reads, which matters to those only who ask for it."""


def _read_integer(digits: str) -> object:
    try:
        return int(digits)
    except ValueError:
        return _UNREADABLE


def _values_in(document: object) -> Iterator[object]:
    """Every value within `document`, however deep."""
    left = [document]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _decode_object(raw: bytes) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = _decode_json(raw)
    except RecursionError:
        raise InvalidPayloadError("data.object is nested too deeply") from None
    except msgspec.DecodeError:
        decoded = _load_leniently(raw)
    return decoded


def _load_leniently(document: bytes, *, read_integer: Callable[[str], object] = int) -> Any:
    try:
        return load_json(document, read_integer=read_integer)
    except ValueError as error:
        raise InvalidPayloadError(f"the body is not JSON: {error}") from None


_VALUE_FREE = ("Expected ", "Object missing required field ", "Invalid RFC3339 ", "Invalid ISO8601 ", "Invalid UUID")
_match_place = re.compile(r"(?:`key` in )?`\$(?:\.\w+|\[\d+\]|\[\.\.\.\])*`").fullmatch


def _misfit(error: Exception, type_: object) -> str:
    """What is wrong and where, in words that hold nothing of what was sent."""
    if isinstance(error, msgspec.ValidationError):
        return _msgspec_misfit(error)
    if callable(errors := getattr(error, "errors", None)):
        known = _field_names(type_)
        return "; ".join(f"{one['type']} - at `{_place(one['loc'], known)}`" for one in errors())
    return f"its validation raised {type(error).__name__}"


def _msgspec_misfit(error: msgspec.ValidationError) -> str:
    # msgspec puts values into some texts, names that were sent into others, and what own validation raises as it is.
    if (cause := error.__cause__) is not None:
        place = str(error).removeprefix(f"{cause} - at ")
        raised = f"its validation raised {type(cause).__name__}"
        return raised if _match_place(place) is None else f"{raised} - at {place}"
    problem, at, place = str(error).rpartition(" - at ")
    if not at or _match_place(place) is None:
        problem, at, place = str(error), "", ""
    if problem.startswith("Invalid enum value"):
        problem = "Invalid enum value"
    elif problem.startswith("Object contains unknown field"):
        problem = "Object contains unknown field"
    elif not problem.startswith(_VALUE_FREE):
        problem = "Invalid value"
    return problem + at + place


def _field_names(type_: object) -> frozenset[str]:
    """The names that a Pydantic model knows its fields by."""
    fields: Mapping[str, Any] = getattr(type_, "model_fields", {})
    aliases = {name for field in fields.values() for name in (field.alias, field.validation_alias)}
    return frozenset(fields) | {name for name in aliases if isinstance(name, str)}


def _place(location: tuple[object, ...], known: frozenset[str]) -> str:
    return f"$.{location[0]}" if location and location[0] in known else "$"


def _check_name(member: str, value: str, *, shortest: int) -> None:
    if not shortest <= len(value) <= MAX_NAME_LENGTH:
        raise InvalidPayloadError(f"{member} must have {shortest} to {MAX_NAME_LENGTH} characters")
    if not is_plain_text(value):
        raise InvalidPayloadError(f"{member} must have no control characters")


def _is_identity(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def object_key(object_id: str) -> str:
    """An object's id as the inbox keeps it: a long or unprintable one stands as its SHA-256.

    So does an empty one, which no object has: a database may keep no id as an empty text.
    """
    if 0 < len(object_id) <= MAX_NAME_LENGTH and is_plain_text(object_id):
        return object_id
    return "sha256:" + hashlib.sha256(object_id.encode("utf-8", "surrogatepass")).hexdigest()


def is_plain_text(value: str) -> bool:
    """Whether `value` has neither control characters nor halves of a surrogate pair: what every database stores."""
    return value.isprintable() or not any(unicodedata.category(c) in {"Cc", "Cs"} for c in value)
