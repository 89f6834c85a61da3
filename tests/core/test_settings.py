"""Names, conversion and limits of the settings."""

import dataclasses
import inspect

import pytest

from envoyou_core import ConfigurationError, Retention, RetryPolicy, Webhooks
from envoyou_core.alerts import Alerts
from envoyou_core.inbox.memory import MemoryInbox
from envoyou_core.nonces.memory import MemoryNonceStore
from envoyou_core.settings import SECRET_NAMES, SETTING_NAMES, above_environment, read_environment, read_settings


def keyword_parameters():
    return {name for name in inspect.signature(Webhooks).parameters if name != "self"}


def test_every_keyword_has_a_setting_and_every_setting_a_keyword():
    parts = {
        f"{whole}_{field.name.upper()}"
        for whole, kind in (("RETRY", RetryPolicy), ("RETENTION", Retention), ("ALERTS", Alerts))
        for field in dataclasses.fields(kind)
    }
    upper = {name.upper() for name in keyword_parameters() - {"secret"}}
    assert upper | {"WEBHOOK_SECRET", "WEBHOOK_SECRET_FILE"} | parts == SETTING_NAMES


def test_every_setting_becomes_the_keyword_of_its_name():
    values = {
        "WEBHOOK_SECRET": "whsec_test",
        "NAME": "billing",
        "INBOX": "memory:",
        "SPOOL": "sqlite:///spool.db",
        "NONCES": MemoryNonceStore(),
        "HANDOFF": "manual",
        "TOLERANCE": 60,
        "SIGNED_CONTENT": ("raw",),
        "REQUIRED_HEADERS": ["X-EnvoyOU-Nonce"],
        "ENDPOINT_HEADERS": {"X-Custom-Header": "your-custom-value"},
        "KEPT_HEADERS": ("X-Custom-Region",),
        "MAX_BODY_SIZE": 1000,
        "MAX_CANONICAL_SIZE": 500,
        "CAPTURE_REJECTED": "captures",
        "INSTRUMENT": (),
        "CONCURRENCY": 2,
        "LEASE": 30,
        "SHUTDOWN_TIMEOUT": 5,
        "HANDLER_WAIT": 600,
        "RETRY": RetryPolicy(max_attempts=7),
        "RETENTION": Retention(id_days=60),
        "ANALYTICS": False,
        "ALERTS": Alerts(webhook_url="http://127.0.0.1:1/alerts"),
        "CLOCK": lambda: 5.0,
    }
    assert {name.removeprefix("WEBHOOK_").lower() for name in values} == keyword_parameters()
    keywords = read_settings(values)
    assert keywords.keys() == keyword_parameters()
    assert keywords == {
        **{name.removeprefix("WEBHOOK_").lower(): value for name, value in values.items()},
        "required_headers": ("X-EnvoyOU-Nonce",),
    }
    webhooks = Webhooks(**keywords)
    assert (webhooks.name, webhooks.max_body_size) == ("billing", 1000)
    assert isinstance(webhooks.inbox, MemoryInbox)


def test_text_values_are_converted():
    assert read_settings(
        {
            "TOLERANCE": "60.5",
            "MAX_BODY_SIZE": "1000",
            "LEASE": "45",
            "SIGNED_CONTENT": " raw , canonical,",
            "REQUIRED_HEADERS": "",
            "RETRY_MAX_ATTEMPTS": "5",
            "RETRY_INITIAL_DELAY": "1",
            "RETRY_FACTOR": "3",
            "RETRY_MAX_DELAY": "60",
            "RETRY_MAX_CRASHES": "2",
            "RETRY_MAX_INTERRUPTIONS": "4",
            "RETENTION_PAYLOAD_DAYS": "7",
            "RETENTION_ID_DAYS": "30.5",
            "RETENTION_MARK_DAYS": "60",
            "RETENTION_SCRUB_PROCESSED": "yes",
        }
    ) == {
        "tolerance": 60.5,
        "max_body_size": 1000,
        "lease": 45.0,
        "signed_content": ("raw", "canonical"),
        "required_headers": (),
        "retry": RetryPolicy(
            max_attempts=5, initial_delay=1, factor=3, max_delay=60, max_crashes=2, max_interruptions=4
        ),
        "retention": Retention(payload_days=7, id_days=30.5, mark_days=60, scrub_processed=True),
    }


def test_secrets_are_not_converted():
    def secrets_of(webhook_id): ...

    for secret in (secrets_of, ["a", "b"], b"bytes", "a,b"):
        assert read_settings({"WEBHOOK_SECRET": secret}) == {"secret": secret}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOLERANCE", "soon"),
        ("TOLERANCE", True),
        ("TOLERANCE", None),
        ("MAX_BODY_SIZE", "1.5"),
        ("MAX_BODY_SIZE", 1.5),
        ("MAX_BODY_SIZE", True),
        ("MAX_CANONICAL_SIZE", "many"),
        ("NAME", 3),
        ("CLOCK", 5.0),
        ("CLOCK", "time.time"),
        ("HANDOFF", None),
        ("SIGNED_CONTENT", 3),
        ("RETRY", "endless"),
        ("RETRY", 3),
        ("RETRY", {"max_attempts": "many"}),
        ("RETRY", {"max_tries": 3}),
        ("RETRY_MAX_ATTEMPTS", []),
        ("RETRY_FACTOR", "twice"),
        ("RETENTION", "30"),
        ("RETENTION", 30),
        ("RETENTION_ID_DAYS", "long"),
        ("RETENTION_SCRUB_PROCESSED", "perhaps"),
    ],
)
def test_an_error_names_the_setting(name, value):
    with pytest.raises(ConfigurationError, match=f"the setting {name} "):
        read_settings({name: value})


@pytest.mark.parametrize("name", ["TOLERANCE", "MAX_BODY_SIZE", "RETRY_DELAYS", "RETRY", "RETENTION"])
def test_an_error_does_not_quote_a_value_that_may_be_a_secret(name):
    with pytest.raises(ConfigurationError, match=f"the setting ENVOYOU_{name} must be ") as caught:
        read_environment({f"ENVOYOU_{name}": "whsec_abc"})
    assert "whsec_abc" not in str(caught.value)


def test_a_number_that_overflows_a_float_is_refused():
    with pytest.raises(ConfigurationError, match="TOLERANCE must be a number"):
        read_settings({"TOLERANCE": 10**400})


def test_a_value_out_of_range_is_refused():
    with pytest.raises(ConfigurationError, match="max_attempts"):
        read_settings({"RETRY_MAX_ATTEMPTS": "0"})
    with pytest.raises(ConfigurationError, match="payload_days"):
        read_settings({"RETENTION_PAYLOAD_DAYS": "0"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WEBHOOK_SECRETS", "WEBHOOK_SECRET"),
        ("TOLERENCE", "TOLERANCE"),
        ("tolerance", "TOLERANCE"),
        ("webhook_secret", "WEBHOOK_SECRET"),
        ("SECRET", "WEBHOOK_SECRET"),
        ("SECRET_KEY", "WEBHOOK_SECRET"),
        ("MAX_ATTEMPTS", "RETRY_MAX_ATTEMPTS"),
        ("COLOUR", None),
    ],
)
def test_an_unknown_name_is_refused_and_the_closest_one_suggested(name, meant):
    with pytest.raises(ConfigurationError, match=f"unknown setting {name!r}") as caught:
        read_settings({name: "private"})
    assert "private" not in str(caught.value)
    assert (f"did you mean {meant!r}?" if meant else "known settings: ALERTS, ALERTS_EMAIL_FROM") in str(caught.value)


def test_names_of_the_caller_are_ignored():
    others = frozenset({"HANDLERS_MODULE"})
    assert read_settings({"HANDLERS_MODULE": "webhooks", "NAME": "a"}, others=others) == {"name": "a"}
    with pytest.raises(ConfigurationError, match="did you mean 'HANDLERS_MODULE'"):
        read_settings({"HANDLER_MODULE": "webhooks"}, others=others)


@pytest.mark.parametrize(
    ("whole", "part"), [({"RETRY": RetryPolicy()}, "RETRY_FACTOR"), ({"RETENTION": None}, "RETENTION_ID_DAYS")]
)
def test_a_policy_is_given_as_a_whole_or_field_by_field(whole, part):
    with pytest.raises(ConfigurationError, match=f"either {next(iter(whole))} or .* not both"):
        read_settings({**whole, part: 50})


@pytest.mark.parametrize(("value", "size"), [("4096", 4096), (None, None), ("None", None), ("off", None)])
def test_max_canonical_size_can_be_switched_off(value, size):
    assert read_settings({"MAX_CANONICAL_SIZE": value}) == {"max_canonical_size": size}


@pytest.mark.parametrize("value", [None, "off", "None"])
def test_retention_can_be_switched_off(value):
    assert read_settings({"RETENTION": value}) == {"retention": None}


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        (None, None),
        ("patient", RetryPolicy.patient()),
        ("Patient", RetryPolicy.patient()),
        ({"max_attempts": "5", "delays": [1, "2"]}, RetryPolicy(max_attempts=5, delays=(1.0, 2.0))),
        ({}, RetryPolicy()),
    ],
)
def test_a_retry_policy_by_name_or_by_fields(value, policy):
    assert read_settings({"RETRY": value}) == {"retry": policy}


def test_an_unknown_field_of_a_retry_policy_is_named():
    with pytest.raises(ConfigurationError, match="RETRY has an unknown field 'max_tries'"):
        read_settings({"RETRY": {"max_tries": 3, "factor": 2}})


@pytest.mark.parametrize(
    ("keyword", "value"), [("retry", "patient"), ("retry", 0), ("retry", {}), ("retention", 30), ("retention", "off")]
)
def test_a_policy_of_the_wrong_type_is_refused(keyword, value):
    with pytest.raises(ConfigurationError, match=f"{keyword} must be a Ret"):
        Webhooks(secret="s", inbox="memory:", **{keyword: value})


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("max_body_size", [0, -1, 1.5, "1000", None, True]),
        ("concurrency", [0, -1, 1.5, "2", None, True]),
        ("lease", [0.5, float("inf"), float("nan"), "60", None, True]),
        ("handler_wait", [-1, float("inf"), float("nan"), "60", None, True]),
        ("shutdown_timeout", [-1, float("inf"), float("nan"), "60", None, True]),
        ("handoff", ["thread", None, 3]),
        ("clock", [5.0, None]),
    ],
)
def test_a_keyword_of_the_wrong_type_or_range_is_refused(keyword, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=f"{keyword} must be .*, got "):
            Webhooks(secret="s", inbox="memory:", **{keyword: value})


@pytest.mark.parametrize("keyword", ["max_body_size", "concurrency", "lease", "shutdown_timeout", "handler_wait"])
def test_an_error_about_a_number_does_not_quote_text(keyword):
    with pytest.raises(ConfigurationError) as caught:
        Webhooks(secret="s", inbox="memory:", **{keyword: "whsec_abc"})
    assert "whsec_abc" not in str(caught.value)


# The environment


def test_the_environment():
    environ = {"ENVOYOU_WEBHOOK_SECRET": "whsec_test", "ENVOYOU_INBOX": "memory:", "PATH": "/bin", "ENVOYOUR": "x"}
    assert read_environment(environ) == {"secret": "whsec_test", "inbox": "memory:"}
    assert read_environment({"HOOKS_NAME": "a", "ENVOYOU_NAME": "b"}, prefix="HOOKS_") == {"name": "a"}


def test_policies_from_the_environment():
    environ = {"ENVOYOU_RETRY": "patient", "ENVOYOU_RETENTION": "off"}
    assert read_environment(environ) == {"retry": RetryPolicy.patient(), "retention": None}
    with pytest.raises(ConfigurationError, match="either ENVOYOU_RETENTION or the ENVOYOU_RETENTION_"):
        read_environment({"ENVOYOU_RETENTION": "off", "ENVOYOU_RETENTION_ID_DAYS": "90"})


def test_other_variables_with_the_prefix_are_ignored():
    assert read_environment({"ENVOYOU_API_KEY": "k", "ENVOYOU_TEST_POSTGRES_URL": "u", "ENVOYOU_": ""}) == {}


def test_a_variable_that_looks_like_a_misspelt_setting_is_refused():
    with pytest.raises(ConfigurationError, match="did you mean 'ENVOYOU_WEBHOOK_SECRET'"):
        read_environment({"ENVOYOU_WEBHOOK_SECRT": "private"})


def test_webhooks_from_the_environment():
    environ = {"ENVOYOU_WEBHOOK_SECRET": "whsec_test", "ENVOYOU_INBOX": "memory:", "ENVOYOU_NAME": "env"}
    assert Webhooks.from_env(environ).name == "env"
    assert Webhooks.from_env(environ, name="given").name == "given"


@pytest.mark.parametrize("environ", [{}, {"ENVOYOU_WEBHOOK_SECRET": ""}])
def test_an_environment_without_a_secret_is_refused_with_the_name_of_the_variable(environ):
    with pytest.raises(ConfigurationError, match=r"set the environment variable ENVOYOU_WEBHOOK_SECRET to "):
        Webhooks.from_env(environ)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ENVOYOU_SECRET", "ENVOYOU_WEBHOOK_SECRET"),
        ("ENVOYOU_MAX_ATTEMPTS", "ENVOYOU_RETRY_MAX_ATTEMPTS"),
        ("envoyou_inbox", "ENVOYOU_INBOX"),
    ],
)
def test_a_variable_that_may_be_meant_as_a_setting_is_logged(variable, meant, caplog):
    assert read_environment({variable: "private"}) == {}
    [record] = caplog.records
    assert record.getMessage() == (
        f"the environment variable {variable} is no setting and has no effect; did you mean {meant}?"
    )


@pytest.mark.parametrize("value", ["false", "False", "off", "no", "0"])
def test_no_spool_on_purpose(value):
    assert read_environment({"ENVOYOU_SPOOL": value}) == read_settings({"SPOOL": False}) == {"spool": False}


# A framework's configuration above the environment


@pytest.mark.parametrize(
    ("settings", "environ", "combined"),
    [
        ({}, {"WEBHOOK_SECRET": f"{16 * 'a'},{16 * 'b'}"}, {"WEBHOOK_SECRET": [16 * "a", 16 * "b"]}),
        ({"NAME": "ours"}, {"NAME": "theirs", "LEASE": "5"}, {"NAME": "ours", "LEASE": "5"}),
        ({"WEBHOOK_SECRET": "ours"}, {"WEBHOOK_SECRET_FILE": "/nowhere"}, {"WEBHOOK_SECRET": "ours"}),
        ({"WEBHOOK_SECRET_FILE": "/ours"}, {"WEBHOOK_SECRET": "theirs"}, {"WEBHOOK_SECRET_FILE": "/ours"}),
        ({"WEBHOOK_SECRET": None}, {"WEBHOOK_SECRET": "theirs"}, {"WEBHOOK_SECRET": "theirs"}),
        ({"WEBHOOK_SECRET": ""}, {"WEBHOOK_SECRET": "theirs"}, {"WEBHOOK_SECRET": ""}),
        ({"RETRY": None}, {"RETRY_FACTOR": "3"}, {"RETRY": None}),
        ({"RETRY_FACTOR": 3}, {"RETRY": "patient", "RETRY_JITTER": "no"}, {"RETRY_FACTOR": 3, "RETRY_JITTER": "no"}),
        ({}, {"INBOX": "memory:", "URL_PREFIX": "/hooks", "API_KEY": "k"}, {"URL_PREFIX": "/hooks"}),
    ],
)
def test_a_configuration_is_completed_from_the_environment(settings, environ, combined):
    variables = {f"ENVOYOU_{name}": value for name, value in environ.items()}
    found = above_environment(settings, variables, others=frozenset({"URL_PREFIX"}), ignored=frozenset({"INBOX"}))
    assert found == combined


def test_an_error_in_the_environment_names_the_variable():
    with pytest.raises(ConfigurationError, match="the setting ENVOYOU_TOLERANCE must be a number"):
        above_environment({"LEASE": 5}, {"ENVOYOU_TOLERANCE": "soon"})


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("ENVOYOU_WEBHOOK_SECRET", "whsec_test")
    monkeypatch.setenv("ENVOYOU_INBOX", "memory:")
    assert isinstance(Webhooks.from_env().inbox, MemoryInbox)


# Secrets in the environment and in files

NEW, OLD = "whsec_of_this_year", "whsec_of_last_year"


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (NEW, NEW),
        ("short", "short"),
        (f"{NEW},{OLD}", [NEW, OLD]),
        (f"{NEW},{OLD},{'k' * 16}", [NEW, OLD, "k" * 16]),
        (f"{NEW},éééééééé", [NEW, "éééééééé"]),
    ],
)
def test_a_comma_in_the_environment_separates_secrets(value, secret):
    assert read_environment({"ENVOYOU_WEBHOOK_SECRET": value}) == {"secret": secret}
    assert read_settings({"WEBHOOK_SECRET": value}) == {"secret": value}


@pytest.mark.parametrize("value", [f"{NEW},", f",{NEW}", f"{NEW},,{OLD}", f"{NEW},{'k' * 15}", ","])
def test_a_short_part_of_the_variable_explains_the_comma(value):
    with pytest.raises(ConfigurationError, match=r"fewer than 16 bytes.*set ENVOYOU_WEBHOOK_SECRET_FILE") as caught:
        read_environment({"ENVOYOU_WEBHOOK_SECRET": value})
    assert "whsec" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (f"{NEW}\n", "the webhook secret ends with U"),
        (f'"{NEW}"', "the webhook secret begins with U"),
        (f"{NEW}, {OLD}", "webhook secret 2 of 2 begins with U.0020"),
        (f'"{NEW},{OLD}"', "webhook secret 1 of 2 begins with U.0022"),
        ("whsec_\udcff\udcfe", "the webhook secret must be valid Unicode text"),
    ],
)
def test_a_variable_with_stray_characters_is_refused(value, named):
    with pytest.raises(ConfigurationError, match=named):
        Webhooks.from_env({"ENVOYOU_WEBHOOK_SECRET": value, "ENVOYOU_INBOX": "memory:"})


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (f"{NEW}", [NEW]),
        (f"{NEW}\n", [NEW]),
        (f"{NEW}\r\n{OLD}\r\n", [NEW, OLD]),
        (f"{NEW}\n\n{OLD}\n\n", [NEW, OLD]),
        ("a,b\nwith spaces inside\n", ["a,b", "with spaces inside"]),
    ],
)
def test_a_file_has_one_secret_per_line(tmp_path, content, secrets):
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    assert read_environment({"ENVOYOU_WEBHOOK_SECRET_FILE": str(file)}) == {"secret": secrets}
    assert read_settings({"WEBHOOK_SECRET_FILE": file, "WEBHOOK_SECRET": None}) == {"secret": secrets}
    assert Webhooks.from_env({"ENVOYOU_WEBHOOK_SECRET_FILE": str(file), "ENVOYOU_INBOX": "memory:"})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "contains no secret"),
        (b"\n\r\n", "contains no secret"),
        (b"whsec_\xff\n", "must be encoded in UTF-8"),
        ("\ufeffwhsec_1".encode("utf-16"), "must be encoded in UTF-8"),
        (b"k" * 65_537, "must have at most 65536 bytes"),
        (f" {NEW}\n".encode(), "begins with U.0020"),
        (f"{NEW}\n  \n".encode(), "2 of 2 must not be empty"),
        (f"{NEW}\r{OLD}".encode(), "contains U.000D"),
        (f"\ufeff{NEW}\n".encode(), "contains U.FEFF .byte order mark"),
        (f"'{NEW}'\n".encode(), "begins with U.0027"),
    ],
)
def test_the_error_for_an_invalid_file_names_the_reason(tmp_path, content, named):
    file = tmp_path / "whsec_file"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=named) as caught:
        Webhooks.from_env({"ENVOYOU_WEBHOOK_SECRET_FILE": str(file), "ENVOYOU_INBOX": "memory:"})
    assert "whsec" not in str(caught.value)


def test_the_error_for_an_unreadable_file_names_the_reason(tmp_path):
    # The path may be a secret that was given to the wrong setting.
    for path, reason in (
        (tmp_path / "whsec_missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("whsec_1\0", "ValueError"),
        ("", "Is a directory"),
        ("whsec_" + "k" * 300, "File name too long"),
        (5, "must be the path of a file, got int"),
    ):
        with pytest.raises(ConfigurationError, match=f"WEBHOOK_SECRET_FILE.*{reason}") as caught:
            read_settings({"WEBHOOK_SECRET_FILE": path})
        assert "whsec" not in str(caught.value)


def test_a_secret_in_both_the_variable_and_the_file_is_refused(tmp_path):
    (tmp_path / "secret").write_text(NEW)
    environ = {"ENVOYOU_WEBHOOK_SECRET": OLD, "ENVOYOU_WEBHOOK_SECRET_FILE": str(tmp_path / "secret")}
    with pytest.raises(ConfigurationError, match="either ENVOYOU_WEBHOOK_SECRET or ENVOYOU_WEBHOOK_SECRET_FILE"):
        read_environment(environ)
    assert read_environment({**environ, "ENVOYOU_NAME": "a"}, others=SECRET_NAMES) == {"name": "a"}


def test_a_secret_as_keyword_takes_precedence_over_an_invalid_environment():
    environ = {"ENVOYOU_WEBHOOK_SECRET": "a,b", "ENVOYOU_WEBHOOK_SECRET_FILE": "/nowhere", "ENVOYOU_INBOX": "memory:"}
    assert Webhooks.from_env(environ, secret=NEW)
