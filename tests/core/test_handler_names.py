"""The names of handlers that `on` does not name: functions of two modules may have the same one."""

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envoyou_core import ConfigurationError, Handlers, PermanentError, RetryPolicy
from envoyou_core.handler_names import function_name
from envoyou_core.inbox import HandlerStatus, Status
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.observability import HandlerAwaited
from tests.core.test_handlers_elsewhere import LEASE, Deployment


def function(module, name="welcome", do=lambda event: None):
    def handle(event):
        do(event)

    handle.__module__, handle.__qualname__ = module, name
    handle.__code__ = handle.__code__.replace(co_filename=f"{module}.py")
    return handle


class Site(Deployment):
    """Processes whose handlers are functions named `welcome` of some modules."""

    def with_modules(self, *modules, **values):
        process = self.process(**values)
        for module in modules:
            process.on("*")(function(module, do=lambda event, module=module: self.call(module)))
        return process

    def call(self, module):
        self.calls.append(module)
        if self.outcomes[module] and (error := self.outcomes[module].pop(0)):
            raise error


@pytest.fixture
def site(clock):
    inbox = MemoryInbox(clock=clock)
    return Site(lambda: inbox, clock)


def names_of(handlers):
    return [handler.name for handler in handlers]


FUNCTIONS = st.lists(
    st.tuples(st.sampled_from(["users", "shop.hooks", "hooks"]), st.sampled_from(["welcome", "Mail.send"])),
    unique=True,
    min_size=1,
)


@given(FUNCTIONS, st.randoms())
def test_names_depend_only_on_what_is_registered(functions, random):
    shuffled = random.sample(functions, len(functions))
    included = Handlers()
    included.include(registered(shuffled[:2]))
    included.include(registered(shuffled[2:]))
    for handlers, order in ((registered(functions), functions), (included, shuffled)):
        expected = [
            f"{module}.{name}" if sum(other == name for _, other in functions) > 1 else name for module, name in order
        ]
        assert names_of(handlers) == expected
        assert len(handlers) == len(functions)


def registered(functions):
    handlers = Handlers()
    for module, name in functions:
        handlers.on("*")(function(module, name))
    return handlers


def test_a_name_that_was_given_is_never_changed():
    handlers = Handlers()
    handlers.on("*", name="welcome")(function("users"))
    with pytest.raises(ConfigurationError, match="two handlers are named 'welcome'"):
        handlers.on("*")(function("shop"))
    handlers.on("*")(function("users", "mail"))
    handlers.on("*", name="shop.mail")(function("shop", "other"))
    with pytest.raises(ConfigurationError, match=r"two handlers are named 'shop\.mail'"):
        handlers.on("*")(function("shop", "mail"))
    assert names_of(handlers) == ["welcome", "mail", "shop.mail"]


def test_a_module_that_is_imported_under_two_names_is_refused():
    handlers = Handlers()
    once, again = function("hooks"), function("project.hooks")
    again.__code__ = once.__code__
    handlers.on("*")(once)
    with pytest.raises(ConfigurationError, match="two handlers are named 'welcome'"):
        handlers.on("*")(again)


def test_handlers_of_one_name_in_two_modules_both_run_once(site, clock):
    both = site.with_modules("users", "shop")
    site.outcomes["shop"] = [ValueError("once")]
    site.deliver(both)
    both.drain()
    assert both.inbox.get("evt_1").progress == {"users.welcome": HandlerStatus.DONE}
    clock.advance(2)
    both.drain()
    assert site.calls == ["users", "shop", "shop"]
    assert both.inbox.get("evt_1").status is Status.PROCESSED


def test_what_was_recorded_under_the_short_name_counts_for_both(site, clock):
    """Only the handler of that name was known then; nobody knows which of the two it is now."""
    one, both = site.with_modules("users"), site.with_modules("users", "shop", retry=RetryPolicy(jitter=False))
    one.on("*", name="bill")(lambda event: site.call("bill"))
    both.on("*", name="bill")(lambda event: site.call("bill"))
    site.outcomes["bill"] = [ValueError("once")]
    site.deliver(one)
    one.drain()
    assert one.inbox.get("evt_1").progress == {"welcome": HandlerStatus.DONE}
    clock.advance(2)
    assert both.drain() == 1
    assert site.calls == ["users", "bill", "bill"]
    assert both.inbox.get("evt_1").status is Status.PROCESSED


@pytest.mark.parametrize("outcome", [ValueError("once"), KeyboardInterrupt()], ids=["failed", "killed"])
def test_what_is_owed_under_the_short_name_is_taken_by_both(site, clock, outcome):
    one, both, none = site.with_modules("users"), site.with_modules("users", "shop"), site.process()
    site.outcomes["users"] = [outcome]
    site.deliver(one)
    with pytest.raises(KeyboardInterrupt) if isinstance(outcome, KeyboardInterrupt) else nullcontext():
        one.drain()
    clock.advance(LEASE + 1)
    none.drain()
    assert none.inbox.get("evt_1").waits_for == "welcome"
    assert both.drain() == 1
    assert site.calls == ["users", "users", "shop"]
    assert both.inbox.get("evt_1").status is Status.PROCESSED


def test_a_process_with_one_of_them_runs_it_and_leaves_the_other(site):
    both, one = site.with_modules("users", "shop"), site.with_modules("users")
    site.deliver(both)
    assert one.drain() == 0
    record = one.inbox.get("evt_1")
    assert (record.waits_for, record.progress) == ("shop.welcome", {"users.welcome": HandlerStatus.DONE})
    assert one.drain() == 0
    assert both.drain() == 1
    assert site.calls == ["users", "shop"]


def test_a_process_with_one_of_them_takes_what_waits_for_it(site, clock):
    both, one, none = site.with_modules("users", "shop"), site.with_modules("users"), site.process()
    site.outcomes["users"] = [ValueError("once")]
    site.deliver(both)
    both.drain()
    clock.advance(2)
    none.drain()
    assert none.inbox.get("evt_1").waits_for == "users.welcome"
    assert one.drain() == 1
    assert site.calls == ["users", "shop", "users"]
    assert not any(isinstance(notice, HandlerAwaited) for notice in one.seen)
    assert one.inbox.get("evt_1").status is Status.PROCESSED


def test_one_of_them_that_has_given_up_or_is_dropped_does_not_run_again(site):
    both, one = site.with_modules("users", "shop"), site.with_modules("users")
    site.outcomes["users"] = [PermanentError("no address")]
    site.deliver(both)
    both.drain()
    assert one.inbox.requeue("evt_1", drop_handlers=["users.welcome"]) == 1
    assert one.drain() == 1
    assert site.calls[:2] == ["users", "shop"]
    assert one.inbox.get("evt_1").progress["users.welcome"] is HandlerStatus.DROPPED
    assert site.calls.count("users") == 1


@pytest.mark.parametrize("name", ["welcome", "users.welcome"])
@pytest.mark.parametrize("modules", [["users"], ["users", "shop"]], ids=" ".join)
def test_a_pause_names_a_handler_by_either_name(site, name, modules, caplog):
    process = site.with_modules(*modules)
    process.pause(handler=name)
    assert caplog.text == ""
    site.deliver(process)
    assert process.drain() == 0
    process.resume(handler=name)
    assert process.drain() == 1


@pytest.mark.parametrize(
    ("main", "full"),
    [
        ({"__spec__": SimpleNamespace(name="shop.hooks")}, "shop.hooks.welcome"),
        ({"__spec__": SimpleNamespace(name="shop.__main__")}, "shop.welcome"),
        ({"__spec__": None, "__file__": "/srv/site/hooks.py"}, "hooks.welcome"),
        ({"__spec__": None}, "__main__.welcome"),
    ],
    ids=["python -m shop.hooks", "python -m shop", "python hooks.py", "python -c"],
)
def test_the_file_that_is_run_has_the_name_by_which_others_import_it(monkeypatch, main, full):
    module = ModuleType("__main__")
    vars(module).update(main)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert function_name(function("__main__")).full == full
