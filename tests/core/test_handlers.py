"""Registration of handlers: patterns, names, parameters, options, order."""

import functools
import logging

import pytest

from envoyou_core import ConfigurationError, Handlers, Webhooks
from envoyou_core.handler import describe_handler


def plain(event): ...


def names(handlers, type):
    return [handler.name for handler in handlers.matching(type)]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("user.created", ["user.created"], ["user.create", "user.created.v2", "USER.CREATED", "user.updated"]),
        ("user.*", ["user.created", "user.anything.new", "user."], ["user", "users.created", "auth.login"]),
        ("*", ["user.created", "anything"], []),
        ("api.key.*", ["api.key.expired"], ["api.key_expired"]),
    ],
)
def test_patterns(pattern, matching, others):
    handler = describe_handler(plain, (pattern,))
    assert all(handler.matches(type) for type in matching)
    assert not any(handler.matches(type) for type in others)


def test_a_handler_of_several_types():
    handler = describe_handler(plain, ("user.created", "auth.*"))
    assert handler.matches("user.created")
    assert handler.matches("auth.login")
    assert not handler.matches("user.deleted")


@pytest.mark.parametrize(
    "pattern",
    ["", "user*", "*.created", "user.*.x", "**", "us*er", "user.**", "*user", 3, None, ["user.created"], plain],
)
def test_malformed_patterns(pattern):
    with pytest.raises(ConfigurationError):
        Handlers().on(pattern)(plain)


def test_on_requires_a_type():
    with pytest.raises(ConfigurationError, match="at least one"):
        Handlers().on()


def test_on_without_parentheses_is_refused():
    with pytest.raises(ConfigurationError, match=r"write @webhooks\.on"):
        Handlers().on(plain)
    with pytest.raises(ConfigurationError, match=r"write @webhooks\.on"):
        Webhooks(secret="s", inbox="memory:").on(plain)(plain)


def test_handlers_keep_the_order_of_registration():
    handlers = Handlers()
    order = [f"handler {number}" for number in (7, 3, 9, 1, 8, 2, 6, 4, 5, 0)]
    for name in order:
        handlers.on("*", name=name)(plain)
    assert names(handlers, "user.created") == order
    assert [handler.name for handler in handlers] == order
    assert len(handlers) == 10


def test_the_decorator_returns_the_function_itself():
    assert Handlers().on("*")(plain) is plain
    assert Webhooks(secret="s", inbox="memory:").on("*")(plain) is plain


# Names


def test_the_default_name_is_the_qualified_name_without_the_module():
    def inner(event): ...

    assert describe_handler(plain, ("*",)).name == "plain"
    assert describe_handler(inner, ("*",)).name.endswith("<locals>.inner")
    assert describe_handler(inner, ("*",), "mail").name == "mail"


def test_duplicate_names_are_refused():
    handlers = Handlers()
    handlers.on("user.created")(plain)
    with pytest.raises(ConfigurationError, match="two handlers are named 'plain'"):
        handlers.on("user.deleted")(plain)
    handlers.on("user.deleted", name="again")(plain)
    assert len(handlers) == 2


def test_a_partial_needs_a_name():
    with pytest.raises(ConfigurationError, match="has no name"):
        describe_handler(functools.partial(plain), ("*",))
    assert describe_handler(functools.partial(plain), ("*",), "mail").name == "mail"


# Kinds


class Callable:
    def __call__(self, event): ...


class AsyncCallable:
    async def __call__(self, event): ...

    async def method(self, event): ...

    @staticmethod
    async def static(event): ...


async def asynchronous(event): ...


@functools.wraps(asynchronous)
def wrapper(*arguments):
    return asynchronous(*arguments)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (plain, False),
        (lambda event: None, False),
        (asynchronous, True),
        (AsyncCallable().method, True),
        (AsyncCallable.static, True),
        (AsyncCallable(), True),
        (Callable(), False),
        (functools.partial(asynchronous), True),
        (functools.partial(plain), False),
        (wrapper, False),
    ],
)
def test_detection_of_async_functions(function, is_async):
    assert describe_handler(function, ("*",), "named").is_async is is_async


def test_generators_are_refused():
    def generator(event):
        yield

    async def async_generator(event):
        yield

    for function in (generator, async_generator):
        with pytest.raises(ConfigurationError, match="is a generator"):
            describe_handler(function, ("*",))


@pytest.mark.parametrize("function", [3, None, "plain"])
def test_an_object_that_is_not_callable_is_refused(function):
    with pytest.raises(ConfigurationError):
        describe_handler(function, ("*",), "named")


# Parameters


@pytest.mark.parametrize(
    ("function", "wants"),
    [
        (lambda event: None, set()),
        (lambda any_name, /: None, set()),
        (lambda *arguments: None, set()),
        (lambda event, attempt: None, {"attempt"}),
        (lambda event, *, delivery, attempt: None, {"attempt", "delivery"}),
        (lambda event, connection: None, {"connection"}),
        (lambda event, attempt=0, other=3, **rest: None, {"attempt"}),
        (lambda event, *rest, **more: None, set()),
        (functools.partial(lambda mailer, event, attempt: None, "mailer"), {"attempt"}),
        (functools.partial(lambda event, mailer, attempt: None, mailer="mailer"), {"attempt"}),
    ],
)
def test_detection_of_parameters(function, wants):
    assert describe_handler(function, ("*",), "named").wants == wants


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda *, event: None,
        lambda **rest: None,
        lambda event, attempt, /: None,
        Callable.__call__,
    ],
)
def test_an_unsupported_required_parameter_is_refused(function):
    with pytest.raises(ConfigurationError):
        describe_handler(function, ("*",), "named")


def test_an_unreadable_signature_is_refused():
    class Unreadable:
        __signature__ = 3
        __qualname__ = "Unreadable"

        def __call__(self, event): ...

    with pytest.raises(ConfigurationError, match="cannot read the parameters"):
        describe_handler(Unreadable(), ("*",), "named")


def test_a_connection_parameter_is_refused_if_the_inbox_has_no_transactions():
    webhooks = Webhooks(secret="s", inbox="memory:")
    with pytest.raises(ConfigurationError, match="connection"):
        webhooks.on("*")(lambda event, connection: None)
    handlers = Handlers()
    handlers.on("*")(lambda event, connection: None)
    with pytest.raises(ConfigurationError, match="connection"):
        webhooks.include(handlers)


def test_an_atomic_handler_is_refused_if_the_inbox_has_no_transactions():
    webhooks = Webhooks(secret="s", inbox="memory:")
    with pytest.raises(ConfigurationError, match="is atomic, but this inbox has no transactions"):
        webhooks.on("*", atomic=True)(plain)
    webhooks.on("*", atomic=False)(plain)


def test_a_handler_with_a_connection_parameter_shares_the_transaction():
    with pytest.raises(ConfigurationError, match="atomic=False rules out"):
        Handlers().on("*", atomic=False)(lambda event, connection: None)
    handlers = Handlers()
    handlers.on("*", name="plain")(plain)
    handlers.on("*", name="named")(lambda event, connection: None)
    handlers.on("*", name="atomic", atomic=True)(plain)
    assert [(handler.name, handler.shares_transaction) for handler in handlers] == [
        ("plain", False),
        ("named", True),
        ("atomic", True),
    ]


# Order and limits


@pytest.mark.parametrize("registry", [Handlers(), Webhooks(secret="s", inbox="memory:")], ids=["Handlers", "Webhooks"])
def test_options_are_stored_with_the_handler(registry):
    known = getattr(registry, "_handlers", registry)
    registry.on("*", name="plain")(plain)
    registry.on("*", name="limited", ordered=True, time_limit=1.5, concurrency=3)(plain)
    registry.on("*", name="late", stale="skip")(plain)
    of = {handler.name: handler for handler in (known.values() if isinstance(known, dict) else known)}
    conditions = {
        name: (handler.ordered, handler.stale, handler.time_limit, handler.concurrency) for name, handler in of.items()
    }
    assert conditions == {
        "plain": (False, None, None, None),
        "limited": (True, None, 1.5, 3),
        "late": (True, "skip", None, None),
    }


@pytest.mark.parametrize("registry", [Handlers(), Webhooks(secret="s", inbox="memory:")], ids=["Handlers", "Webhooks"])
@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("stale", ["drop", "", True, 0]),
        ("time_limit", [0, -1, float("inf"), float("nan"), "10", True]),
        ("concurrency", [0, -1, 1.5, 2.0, "2", True]),
        ("atomic", [0, 1, "no"]),
    ],
)
def test_an_invalid_option_is_refused_at_once(registry, option, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=option):
            registry.on("*", **{option: value})


def test_a_refused_handler_is_not_registered():
    webhooks = Webhooks(secret="s", inbox="memory:")
    with pytest.raises(ConfigurationError):
        webhooks.on("*")(lambda event, connection: None)
    assert len(webhooks._handlers) == 0


def test_a_decorator_can_register_several_functions():
    webhooks = Webhooks(secret="s", inbox="memory:")
    in_order = webhooks.on("user.*", ordered=True)
    in_order(plain)
    in_order(asynchronous)
    assert [handler.name for handler in webhooks._handlers if handler.ordered] == ["plain", "asynchronous"]


# Registries


def test_registries_are_included_in_order():
    webhooks = Webhooks(secret="s", inbox="memory:")
    first, second = Handlers(), Handlers()
    first.on("user.*", name="b")(plain)
    first.on("user.*", name="a")(plain)
    second.on("user.*", name="0")(plain)
    webhooks.on("user.*", name="z")(plain)
    webhooks.include(first)
    webhooks.include(second)
    assert names(webhooks._handlers, "user.created") == ["z", "b", "a", "0"]


def test_including_a_registry_twice_is_refused():
    webhooks = Webhooks(secret="s", inbox="memory:")
    handlers = Handlers()
    handlers.on("*")(plain)
    webhooks.include(handlers)
    with pytest.raises(ConfigurationError, match="two handlers"):
        webhooks.include(handlers)


# Misspellings


def test_a_likely_misspelling_logs_a_warning(caplog):
    Handlers().on("user.creatd")(plain)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("envoyou.handlers", logging.WARNING)
    assert "'user.creatd'" in record.getMessage()
    assert "'user.created'" in record.getMessage()


@pytest.mark.parametrize("pattern", ["user.created", "user.*", "*", "invoice.paid"])
def test_a_known_type_a_prefix_or_an_unrelated_type_logs_no_warning(pattern, caplog):
    Handlers().on(pattern)(plain)
    assert caplog.records == []
