"""Handlers whose event is typed by annotation."""

import enum
from dataclasses import dataclass
from functools import partial, wraps
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from envoyou_core import ConfigurationError, Event, Handlers, InvalidPayloadError, Login, User
from envoyou_core.inbox import Status
from envoyou_core.observability import HandlerFailed
from tests.core.test_engine import WAYS, App

SENT = "value-that-was-sent"


class Model(pydantic.BaseModel):
    id: str
    plan: Literal["free", "paid"] = "free"


class Struct(msgspec.Struct):
    id: str
    plan: Literal["free", "paid"] = "free"


@dataclass
class Data:
    id: str
    plan: Literal["free", "paid"] = "free"


class Plan(enum.Enum):
    FREE = "free"


class Dictionary(TypedDict):
    id: str
    plan: Plan


@pytest.fixture(params=WAYS)
def app(request, clock):
    return App(request.param, clock)


@pytest.fixture
def drained(clock):
    return App("drain", clock)


@pytest.mark.parametrize("type_", [Model, Struct, Data, User])
def test_an_annotated_handler_gets_an_object_of_the_type(app, type_):
    seen = []

    @app.on("*", name="sync")
    def handler(event: Event[type_], attempt):
        seen.append((event.data.object, attempt))

    @app.on("*", name="async")
    async def asynchronous(event: Event[type_]):
        seen.append((event.data.object, event.id))

    @app.on("*", name="plain")
    def plain(event: Event):
        seen.append((event.data.object, event.id))

    sent = {"id": "user_1"}
    app.add(object=sent)
    app.work()
    assert app.status() is Status.PROCESSED
    expected = type_(id="user_1")
    assert seen == [(expected, 1), (expected, "evt_1"), (sent, "evt_1")]
    assert type(seen[0][0]) is type_


@pytest.mark.parametrize("type_", [Model, Struct, Data, Dictionary])
def test_an_object_that_does_not_fit_fails_its_handler_with_the_field_and_without_the_value(drained, type_, caplog):
    called = []

    @drained.on("*", name="typed")
    def typed(event: Event[type_]):
        called.append("typed")

    drained.on("*", name="plain")(lambda event: called.append("plain"))
    drained.add(object={"id": "user_1", "plan": SENT})
    drained.work()
    assert called == ["plain"]
    [failure] = drained.record().history[0].failures
    assert (failure.handler, drained.status()) == ("typed", Status.FAILED)
    assert failure.error.startswith(f"InvalidPayloadError: data.object is not a {type_.__name__}: ")
    assert failure.error.endswith("at `$.plan`")
    # The exception itself too: it is passed to listeners, which redact nothing.
    raised = drained.notices_of(HandlerFailed)[0].error
    assert SENT not in str(raised) + failure.error + failure.traceback + caplog.text


def test_a_handler_may_give_up_on_an_object_that_does_not_fit(drained):
    @drained.on("*", give_up_on=InvalidPayloadError)
    def typed(event: Event[Login]): ...

    drained.add(object={"ip_address": 3})
    drained.work()
    assert drained.status() is Status.DEAD


def test_the_type_is_found_in_texts_and_behind_decorators():
    def in_text(event: "Event[Data]"): ...
    def half_in_text(event: Event["Data"]): ...
    def annotated(event: Annotated[Event[Data], "note"]): ...

    @wraps(in_text)
    def wrapper(*arguments): ...

    class Handling:
        def method(self, event: "Event[Data]"): ...

        def __call__(self, event: "Event[Data]"): ...

    functions = [in_text, half_in_text, annotated, wrapper, Handling().method, Handling(), partial(in_text)]
    handlers = Handlers()
    for number, function in enumerate(functions):
        handlers.on("*", name=str(number))(function)
    assert [handler.object_type for handler in handlers] == [Data] * len(functions)


def test_other_annotations_leave_the_mapping():
    def plain(event: Event): ...
    def mapping(event: Event[dict[str, Any]]): ...
    def other(event: dict[str, Any]): ...
    def unknown(event: "NotDefinedHere"): ...  # noqa: F821

    handlers = Handlers()
    for function in (plain, mapping, other, unknown, lambda event: None):
        handlers.on("*", name=function.__name__)(function)
    assert [handler.object_type for handler in handlers] == [None] * 5


def text_that_cannot_be_read(event: "Event[DefinedForTypeCheckers]"): ...  # noqa: F821


def a_text_has_no_members(event: Event[str]): ...


def two_objects(event: Event[Struct | Data]): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (text_that_cannot_be_read, "name 'DefinedForTypeCheckers' is not defined; define or import the type"),
        (a_text_has_no_members, "cannot convert data.object to str: expected a Pydantic model"),
        (two_objects, "cannot convert data.object to .*Struct"),
    ],
)
def test_a_type_that_cannot_be_used_is_refused_at_once(function, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        Handlers().on("*")(function)
    assert repr(function.__name__) in str(refused.value)
