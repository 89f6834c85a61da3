"""Every exported name says what it is; every function says what it takes, in which unit, and what it raises."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import envoyou_core

pytestmark = pytest.mark.text

MODULES = [
    importlib.import_module(name)
    for name in [
        "envoyou_core",
        *(module.name for module in pkgutil.walk_packages(envoyou_core.__path__, "envoyou_core.")),
    ]
]
EXPORTED = sorted({(module.__name__, name) for module in MODULES for name in getattr(module, "__all__", ())})
UNITS = {"tolerance", "timestamp", "now", "lease", "max_body_size", "initial_delay", "max_delay", "created"}


def exported(kind):
    found = {}
    for module, name in EXPORTED:
        value = getattr(importlib.import_module(module), name)
        if kind(value) and value.__module__.startswith("envoyou_core"):
            found[f"{value.__module__}.{name}"] = value
    return found


CLASSES = exported(inspect.isclass)
FUNCTIONS = exported(inspect.isfunction)


def described(cls):
    """The class's own documentation and that of its public methods."""
    return [cls] + [
        member
        for name, member in vars(cls).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod))
    ]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_module_says_what_it_is(module):
    assert module.__doc__


def test_every_public_module_names_what_it_exports():
    for module in MODULES:
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__} exports {name}, and has none"


def test_the_names_promised_to_users_are_exported():
    promised = """
        Webhooks Handlers Event WebhookRequest WebhookResponse sign verify RetryPolicy PermanentError RetryLater
        EVENT_TYPES EnvoyouError ConfigurationError WebhookError WebhookVerificationError MissingSignatureError
        InvalidTimestampError TimestampOutOfToleranceError SignatureMismatchError NonceReusedError InvalidPayloadError
        MissingHeaderError HeaderMismatchError
    """
    assert set(promised.split()) <= set(envoyou_core.__all__)
    assert sorted(envoyou_core.__all__) == sorted(set(envoyou_core.__all__))


@pytest.mark.parametrize("name", CLASSES)
def test_every_exported_class_and_its_methods_have_a_docstring(name):
    for member in described(CLASSES[name]):
        documentation = inspect.getdoc(member)
        assert documentation, f"{name}: {member!r} says nothing"
        assert not documentation.startswith(f"{CLASSES[name].__name__}("), "drawn from the fields, not written"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_exported_function_has_a_docstring(name):
    assert inspect.getdoc(FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_with_a_unit_say_which(name):
    documentation = inspect.getdoc(FUNCTIONS[name])
    for parameter, described in inspect.signature(FUNCTIONS[name]).parameters.items():
        # A datetime needs no unit.
        if parameter in UNITS and described.annotation != "datetime":
            [line] = re.findall(rf"^    {parameter}: (.*(?:\n        .*)*)", documentation, flags=re.MULTILINE)
            assert re.search(r"second|bytes", line), f"{name}({parameter}) names no unit"


def test_the_settings_of_webhooks_are_all_described_with_their_units():
    documentation = inspect.getdoc(envoyou_core.Webhooks)
    for parameter in inspect.signature(envoyou_core.Webhooks).parameters:
        [line] = re.findall(rf"^    {parameter}: (.*(?:\n        .*)*)", documentation, flags=re.MULTILINE)
        if parameter in UNITS:
            assert re.search(r"second|bytes", line), f"{parameter} names no unit"


def raising():
    for path in sorted(Path(envoyou_core.__file__).parent.rglob("*.py")):
        yield from re.findall(r"See (?:the guide, )?(\"[^\"]+\"(?: and \"[^\"]+\")*)", path.read_text())


def test_sections_of_the_guide_are_named_as_the_guide_names_them():
    sections = {
        "Best Practices",
        "Authentication Events",
        "Configure Webhook Settings",
        "Delete Webhook",
        "Handling Failures",
        "List Webhooks",
        "Logging and Monitoring",
        "Monitoring and Analytics",
        "Recommended Validation Steps",
        "Register Webhook URL",
        "Response Time",
        "Retry Policy",
        "Security and Verification",
        "Security Headers",
        "Signature Verification Fails",
        "Setting Up Webhooks",
        "Supported Events",
        "Update Webhook",
        "User Created Event",
        "Webhook Management",
        "Webhook Payload Structure",
        "Webhook Signature Verification",
    }
    named = {section for sections in raising() for section in re.findall(r'"([^"]+)"', sections)}
    assert named
    assert {" ".join(section.split()) for section in named} <= sections
