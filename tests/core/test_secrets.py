"""The secrets that a request is checked against, and the tenant of its event."""

import asyncio
import hashlib
from collections import namedtuple
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envoyou_core import ConfigurationError, Tenant, WebhookRequest, Webhooks, verify
from envoyou_core.errors import UnavailableError, UnknownEndpointError
from envoyou_core.reception.secrets import Keys, key_source, newest_secret, written_secrets
from envoyou_core.reception.signature import SigningKey
from envoyou_core.steps import run
from envoyou_core.testing import sample_event, sign_delivery

NEW, OLD, OTHER = "whsec_of_this_year", "whsec_of_last_year", "whsec_of_another"
Row = namedtuple("Row", "id secret")


class SecretStr:
    """Like Pydantic's: neither text nor iterable."""

    def get_secret_value(self):
        return NEW


def find(secret, webhook_id="wh_1"):
    return found_in(key_source(secret, clock=lambda: 0.0), webhook_id)


def found_in(source, webhook_id):
    found = source.find(webhook_id)
    return found if isinstance(found, Keys) else run(found)


def signature(keys):
    return [key.signature(b"1", b"{}") for key in keys]


def fingerprint(secret):
    return f"fingerprint:{SigningKey(secret).fingerprint()}"


def receiving(secret, **settings):
    """Create webhooks, and the list of the ids of the events that their handler gets."""
    webhooks = Webhooks(secret=secret, inbox="memory:", handoff="manual", **settings)
    runs = []
    webhooks.on("*", name="note")(lambda event: runs.append(event.id))
    return webhooks, runs


def deliver(webhooks, delivery, **headers):
    status = webhooks.receive(WebhookRequest.from_http("POST", {**delivery.headers, **headers}, delivery.body)).status
    webhooks.drain()
    return status


# Settings


@pytest.mark.parametrize("webhook_id", [None, "wh_1", "wh_2"])
@pytest.mark.parametrize("several", [list, tuple])
def test_fixed_secrets_are_the_same_for_every_request(several, webhook_id):
    keys = find(several([NEW, OLD]), webhook_id)
    assert (keys.tenant, len(keys.keys)) == ("", 2)


@pytest.mark.parametrize("secret", [None, "", b"", " ", [], (), {}, [""], {"wh_1": ""}, {"wh_1": []}, 3, object()])
def test_no_secret_is_a_configuration_error_at_once(secret):
    with pytest.raises(ConfigurationError):
        find(secret)


LOOKS_LIKE_SECRETS = [
    (Row("wh_1", NEW), "got Row; if it is a database row"),
    ({NEW, OLD}, "got set, which has no order"),
    (frozenset({NEW}), "got frozenset, which has no order"),
    ((secret for secret in [NEW]), "got generator"),
    ({"id": NEW}.values(), "got dict_values"),
    (SecretStr(), r"got SecretStr; pass its \.get_secret_value\(\)"),
    (bytearray(b"whsec_1"), "got bytearray"),
    (SimpleNamespace(secret=NEW), "got SimpleNamespace"),
]


@pytest.mark.parametrize(("secret", "reason"), LOOKS_LIKE_SECRETS)
def test_a_setting_that_only_looks_like_secrets_is_refused(secret, reason):
    with pytest.raises(ConfigurationError, match=reason):
        find(secret)
    with pytest.raises(ConfigurationError, match=reason):
        verify({}, b"", secret=secret)


def test_every_item_of_a_list_must_be_a_secret():
    for one in (SecretStr(), [NEW], Tenant("acme", NEW), None):
        with pytest.raises(ConfigurationError, match="webhook secret 2 of 2 must be str or bytes, got"):
            find([NEW, one])


def test_verify_takes_the_secrets_of_one_endpoint():
    delivery = sign_delivery(sample_event(), secret=OLD)
    for secret in (OLD, OLD.encode(), [NEW, OLD], (NEW, OLD)):
        assert verify(delivery.headers, delivery.body, secret=secret)
    with pytest.raises(ConfigurationError, match="got dict, which may hold several endpoints"):
        verify(delivery.headers, delivery.body, secret={"wh_1": OLD})
    with pytest.raises(ConfigurationError, match="got function"):
        verify(delivery.headers, delivery.body, secret=lambda webhook_id: OLD)


# A mapping


def test_a_mapping_has_the_secrets_of_each_webhook_id():
    secrets = {"wh_1": NEW, "wh_2": [OTHER, OLD.encode()], "wh_3": Tenant("acme", "whsec_acme")}
    for webhook_id, tenant, keys in (("wh_1", "wh_1", [NEW]), ("wh_2", "wh_2", [OTHER, OLD]), ("wh_3", "acme", None)):
        found = find(secrets, webhook_id)
        assert found.tenant == tenant
        assert keys is None or signature(found.keys) == signature(map(SigningKey, keys))
    for unknown in (None, "", "WH_1", "wh_1 ", "whsec_acme"):
        with pytest.raises(UnknownEndpointError):
            find(secrets, unknown)


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        ({"wh_1": NEW, "wh_2": NEW}, "entry 2 of the secrets by webhook id shares a secret"),
        ({"wh_1": NEW, "wh_2": [OTHER, NEW.encode()]}, "shares a secret"),
        ({"wh_1": Tenant("a", NEW), "wh_2": Tenant("b", NEW)}, "shares a secret"),
        ({"wh_1": NEW, "wh_2": Tenant("acme", [OTHER, NEW])}, "shares a secret"),
        # HMAC replaces a key of more than 64 bytes by its hash.
        ({"wh_1": "k" * 65, "wh_2": hashlib.sha256(b"k" * 65).digest()}, "shares a secret"),
        ({1: NEW}, "must have a webhook id as its key, got int"),
        ({b"wh_1": NEW}, "must have a webhook id as its key, got bytes"),
        ({"": NEW}, "1 to 255 characters"),
        ({"wh_1\n": NEW}, "no control characters"),
        ({" wh_1": NEW}, "no white space around"),
        ({"w" * 256: NEW}, "1 to 255 characters"),
        ({"wh_1": None}, "entry 1 of the secrets by webhook id: .* got NoneType"),
        ({"wh_1": ("wh_1", NEW)}, "got tuple; if it is a database row"),
        ({"wh_1": {"secret": NEW}}, "got dict, which may hold several endpoints or columns"),
        ({"wh_1": SecretStr()}, r"\.get_secret_value\(\)"),
        ({"wh_1": Tenant("acme", ("wh_1", NEW))}, "got tuple"),
        ({"wh_1": NEW + "\n"}, r"entry 1 of the secrets by webhook id: .*line feed"),
    ],
)
def test_an_invalid_mapping_is_a_configuration_error(secrets, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        find(secrets)
    assert "whsec" not in str(caught.value)


def test_endpoints_of_a_mapping_may_share_a_secret_within_one_tenant():
    secrets = {"wh_1": Tenant("acme", NEW), "wh_2": Tenant("acme", [NEW, OLD])}
    webhooks, runs = receiving(secrets)
    event = sample_event(id="evt_1", webhook_id=None)
    assert deliver(webhooks, sign_delivery(event, secret=NEW, webhook_id="wh_1")) == 200
    assert deliver(webhooks, sign_delivery(event, secret=NEW, webhook_id="wh_2")) == 200
    assert runs == ["evt_1"]


def test_a_mapping_is_read_once():
    secrets = {"wh_1": NEW}
    source = key_source(secrets, clock=lambda: 0.0)
    secrets["wh_2"] = OTHER
    with pytest.raises(UnknownEndpointError):
        found_in(source, "wh_2")


# A callable


def test_a_callable_is_called_with_the_webhook_id():
    asked = []

    def secret_of(webhook_id):
        asked.append(webhook_id)
        return NEW

    keys = find(secret_of)
    assert (asked, keys.tenant) == (["wh_1"], fingerprint(NEW))
    assert signature(keys.keys) == signature(find(NEW).keys)


def test_the_tenant_of_plain_secrets_is_a_fingerprint_of_the_oldest():
    for secrets in (OLD, OLD.encode(), [OLD], [NEW, OLD], [OTHER, NEW, OLD.encode()]):
        keys = find(lambda webhook_id, secrets=secrets: secrets)
        assert keys.tenant == fingerprint(OLD)
    assert len({fingerprint(secret) for secret in (OLD, NEW, OTHER)}) == 3
    assert OLD not in fingerprint(OLD)


def test_a_tenant_may_have_several_endpoints():
    source = key_source(lambda webhook_id: Tenant("acme", [NEW]), clock=lambda: 0.0)
    assert found_in(source, "wh_1").tenant == found_in(source, "wh_2").tenant == "acme"


@pytest.mark.parametrize("nothing", [None, "", b"", []])
def test_a_webhook_id_without_a_secret_is_an_unknown_endpoint(nothing):
    with pytest.raises(UnknownEndpointError):
        find(lambda webhook_id: nothing)


def test_without_a_webhook_id_the_callable_is_not_called():
    def secret_of(webhook_id):
        raise AssertionError("it was called")

    with pytest.raises(UnknownEndpointError):
        find(secret_of, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([""], "webhook secret 1 of 1 must not be empty"),
        (Tenant("acme", ""), "empty"),
        (Tenant("acme", []), "webhook secrets must not be empty"),
        (Tenant("acme", ("wh_1", NEW)), "got tuple"),
        (Tenant("acme", None), "got NoneType"),
        ([Tenant("acme", NEW)], "got Tenant"),
        ({"id": "wh_1", "secret": NEW}, "got dict"),
        ({}, "got dict"),
        (("wh_1", NEW), "got tuple; if it is a database row"),
        ((), "got tuple"),
        (3, "got int"),
        (0, "got int"),
        (False, "got bool"),
        (memoryview(b"whsec_1"), "got memoryview"),
        (NEW + "\n", "line feed"),
        ([NEW, f'"{OLD}"'], "webhook secret 2 of 2 begins with U+0022".replace("+", r"\+")),
        *LOOKS_LIKE_SECRETS,
    ],
)
def test_an_invalid_answer_of_a_callable_is_unavailable(answer, reason):
    with pytest.raises(UnavailableError, match=f"the secret callable failed: ConfigurationError: .*{reason}") as caught:
        find(lambda webhook_id: answer)
    assert NEW not in str(caught.value)
    assert OLD not in str(caught.value)


@pytest.mark.parametrize("id", [7, None, b"acme", "a" * 256, "a\nb", "\ud800"])
def test_the_id_of_a_tenant_must_be_storable_text(id):
    with pytest.raises(ConfigurationError, match="a Tenant's id must"):
        Tenant(id, NEW)
    with pytest.raises(UnavailableError, match="a Tenant's id must"):
        find(lambda webhook_id: Tenant(id, NEW))


def test_a_tenants_repr_does_not_show_its_secret():
    assert repr(Tenant("acme", "whsec_private")) == "Tenant('acme')"


async def secret_later(webhook_id):
    await asyncio.sleep(0)
    return {"wh_1": NEW}.get(webhook_id)


class Vault:
    async def __call__(self, webhook_id):
        return await secret_later(webhook_id)


@pytest.mark.parametrize("secret", [secret_later, Vault(), lambda webhook_id: secret_later(webhook_id)])
def test_an_async_callable_is_awaited_on_the_loop_or_on_one_of_its_own(secret):
    event = sample_event(webhook_id=None)
    genuine = sign_delivery(event, secret=NEW, webhook_id="wh_1")
    forged = sign_delivery(event, secret="whsec_forged", webhook_id="wh_1")
    unknown = sign_delivery(event, secret=NEW, webhook_id="wh_2")
    for delivery, status in ((genuine, 200), (forged, 401), (unknown, 401)):
        assert deliver(receiving(secret)[0], delivery) == status
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert asyncio.run(receiving(secret)[0].areceive(request)).status == status
    assert receiving(secret)[0].verify(WebhookRequest.from_http("POST", genuine.headers, genuine.body)).id == event.id


def test_an_async_callable_runs_on_the_servers_own_loop():
    loops = []

    async def secret_of(webhook_id):
        loops.append(asyncio.get_running_loop())
        return NEW

    async def serve():
        delivery = sign_delivery(sample_event(), secret=NEW)
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert (await receiving(secret_of)[0].areceive(request)).status == 200
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(serve())


def test_an_async_callable_also_works_if_the_caller_blocks_a_loop():
    async def serve():
        delivery = sign_delivery(sample_event(webhook_id="wh_1"), secret=NEW)
        request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
        assert receiving(secret_later)[0].receive(request).status == 200

    asyncio.run(serve())


def test_an_async_callable_runs_in_the_context_of_the_framework():
    calls = []

    @contextmanager
    def around():
        calls.append("enter")
        yield
        calls.append("leave")

    async def secret_of(webhook_id):
        calls.append("call")
        return NEW

    webhooks, _ = receiving(secret_of)
    webhooks.add_context(around)
    delivery = sign_delivery(sample_event(), secret=NEW)
    request = WebhookRequest.from_http("POST", delivery.headers, delivery.body)
    assert webhooks.receive(request, in_context=True).status == 200
    assert calls[calls.index("call") - 1] == "enter"
    assert calls[-1] == "leave"


def test_an_async_callable_that_fails_is_unavailable():
    async def secret_of(webhook_id):
        raise LookupError("the vault is away")

    delivery = sign_delivery(sample_event(), secret=NEW)
    assert deliver(receiving(secret_of)[0], delivery) == 503


def test_consecutive_requests_share_one_call_of_a_callable():
    now, asked = [1_000.0], []

    def secret_of(webhook_id):
        asked.append(webhook_id)
        return NEW if webhook_id == "wh_1" else None

    source = key_source(secret_of, clock=lambda: now[0])
    for seconds in (0.0, 2.0, 4.9):
        now[0] = 1_000.0 + seconds
        assert found_in(source, "wh_1").tenant == fingerprint(NEW)
        with pytest.raises(UnknownEndpointError):
            found_in(source, "wh_2")
    assert asked == ["wh_1", "wh_2"]
    now[0] = 1_005.0
    found_in(source, "wh_1")
    assert asked == ["wh_1", "wh_2", "wh_1"]


def test_a_failure_of_a_callable_is_not_cached():
    answers = [RuntimeError("away"), {"id": 1}, NEW]

    def secret_of(webhook_id):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    source = key_source(secret_of, clock=lambda: 0.0)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            found_in(source, "wh_1")
    assert found_in(source, "wh_1").tenant == fingerprint(NEW)


# Properties


def tenants_by_secret():
    """Create each kind of the setting, for endpoints `wh_a` and `wh_b` with different secrets."""
    secrets = {"wh_a": NEW, "wh_b": OTHER}

    async def later(webhook_id):
        return secrets.get(webhook_id.lower())

    return {
        "mapping": secrets,
        "mapping of tenants": {"wh_a": Tenant("a", NEW), "wh_b": Tenant("b", [OTHER])},
        "callable": secrets.get,
        "callable that folds case": lambda webhook_id: secrets.get(webhook_id.lower()),
        "async callable": later,
        "callable of tenants": lambda webhook_id: Tenant(webhook_id.lower()[:4], secrets[webhook_id.lower()[:4]]),
    }


SETTINGS = {
    "one": NEW,
    "several": [NEW, OLD],
    "callable that ignores the id": lambda webhook_id: NEW,
    "callable with several": lambda webhook_id: [NEW, OLD],
    **tenants_by_secret(),
}
HEADERS = ["X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type", "X-EnvoyOU-Nonce", "Content-Type"]
WEBHOOK_IDS = st.sampled_from(["WH_A", "Wh_a", "wh_b", "wh_a ", " wh_a", "wh_a\t", "", "wh_ab", "wh_a, wh_a"])
CHANGES = st.fixed_dictionaries(
    {}, optional={name: WEBHOOK_IDS | st.text(max_size=20) | st.just("application/json") for name in HEADERS}
)


@pytest.mark.parametrize("kind", SETTINGS)
@given(changes=st.lists(CHANGES, max_size=5), named=st.booleans())
@settings(max_examples=30)
def test_changed_unsigned_headers_never_run_a_handler_again(kind, changes, named):
    webhooks, runs = receiving(SETTINGS[kind])
    event = sample_event(id="evt_1", webhook_id="wh_a" if named else None)
    captured = sign_delivery(event, secret=NEW, webhook_id="wh_a")
    assert deliver(webhooks, captured) == 200
    for headers in changes:
        deliver(webhooks, captured, **{name: value.encode() for name, value in headers.items()})
        deliver(webhooks, captured, **{"X-EnvoyOU-Nonce": f"n{len(runs)}"})
    assert runs == ["evt_1"]


@pytest.mark.parametrize("kind", tenants_by_secret())
def test_endpoints_with_different_secrets_cannot_affect_each_others_events(kind):
    webhooks, runs = receiving(tenants_by_secret()[kind])
    event = sample_event(id="evt_1", webhook_id=None)
    assert deliver(webhooks, sign_delivery(event, secret=OTHER, webhook_id="wh_b", nonce="n")) == 200
    assert deliver(webhooks, sign_delivery(event, secret=OTHER, webhook_id="wh_a")) == 401
    assert deliver(webhooks, sign_delivery(event, secret=NEW, webhook_id="wh_b")) == 401
    # The same id and the same nonce can be used at the other endpoint.
    assert deliver(webhooks, sign_delivery(event, secret=NEW, webhook_id="wh_a", nonce="n")) == 200
    assert runs == ["evt_1", "evt_1"]
    assert len({record.tenant for record in webhooks.inbox.list()}) == 2


ROTATION = [OLD], [NEW, OLD], [NEW]


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        (lambda secrets: secrets, 3),
        (lambda secrets: {"wh_a": secrets}, 3),
        (lambda secrets: {"wh_a": Tenant("acme", secrets)}, 3),
        (lambda secrets: lambda webhook_id: Tenant("acme", secrets), 3),
        # The last step removes the secret that the fingerprint is derived from.
        (lambda secrets: lambda webhook_id: secrets, 2),
    ],
    ids=["fixed", "mapping", "mapping of tenants", "callable of tenants", "callable"],
)
def test_a_redelivery_after_each_step_of_a_rotation_is_a_duplicate(tmp_path, setting, steps):
    event, runs = sample_event(id="evt_1", webhook_id="wh_a"), []
    for secrets in ROTATION[:steps]:
        webhooks = Webhooks(secret=setting(secrets), inbox=f"sqlite:///{tmp_path}/inbox.db", handoff="manual")
        webhooks.on("*", name="note")(lambda event: runs.append(event.id))
        for secret in secrets:
            assert deliver(webhooks, sign_delivery(event, secret=secret)) == 200
        webhooks.inbox.close()
    assert runs == ["evt_1"]


# The text of a secret


@pytest.mark.parametrize(
    ("secret", "named"),
    [
        (f"{NEW}\n", r"ends with U\+000A \(line feed\)"),
        (f"{NEW}\r\n", r"ends with U\+000A"),
        (f"{NEW}\r", r"ends with U\+000D \(carriage return\)"),
        (f" {NEW}", r"begins with U\+0020 \(space\)"),
        (f"{NEW}\t", r"ends with U\+0009 \(tab\)"),
        (f"{NEW}\u00a0", r"ends with U\+00A0 \(no-break space\)"),
        (f"{NEW}\u3000", r"ends with U\+3000 \(ideographic space\)"),
        (f"{NEW}\u2028", r"ends with U\+2028 \(line separator\)"),
        (f"\ufeff{NEW}", r"contains U\+FEFF \(byte order mark\)"),
        (f"{NEW}\u200b", r"contains U\+200B \(zero width space\)"),
        (f"{NEW}\0", r"contains U\+0000 \(null\)"),
        (f"whsec\u200d{NEW}", r"contains U\+200D \(zero width joiner\)"),
        (f"whsec\u00a0{NEW}", r"contains U\+00A0"),
        (f"{NEW}\n{OLD}", r"contains U\+000A"),
        (f"{NEW}\u00ad", r"contains U\+00AD \(soft hyphen\)"),
        (f"{NEW}\ufe0f", r"contains U\+FE0F"),
        (f"{NEW}\u3164", r"contains U\+3164"),
        (f'"{NEW}"', r"begins with U\+0022 \(quotation mark\)"),
        (f"{NEW}'", r"ends with U\+0027 \(apostrophe\)"),
        (f"\u201c{NEW}\u201d", r"begins with U\+201C \(left double quotation mark\)"),
        (f"{NEW}\u2019", r"ends with U\+2019"),
        (f"\u201e{NEW}", r"begins with U\+201E"),
        (f"`{NEW}`", r"begins with U\+0060"),
    ],
)
def test_white_space_quotes_and_invisible_characters_are_named(secret, named):
    for given_secret in (secret, secret.encode(), [secret], {"wh_1": secret}):
        with pytest.raises(ConfigurationError, match=named) as caught:
            find(given_secret)
        assert "whsec" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=named):
        verify({}, b"", secret=secret)


@pytest.mark.parametrize(
    "secret",
    [
        "correct horse battery staple",
        "comma,inside",
        'it\'s "quoted" inside',
        "whsec_sécret-ключ-🔑",
        b"\xff\n",
        b'"\x80\x00\xfe\n',
    ],
)
def test_what_a_secret_may_contain(secret):
    assert find(secret).keys


# Samples


def test_the_newest_secret_signs_samples():
    for secret in (NEW, [NEW, OLD], (NEW, OLD), {"wh_1": [NEW, OLD]}, {"wh_1": Tenant("acme", NEW)}, secret_later):
        assert newest_secret(secret, "wh_1") == NEW
    assert newest_secret(lambda webhook_id: Tenant("acme", [NEW, OLD]), "wh_1") == NEW
    for secret in (None, {"wh_2": NEW}, lambda webhook_id: None):
        with pytest.raises(ConfigurationError, match="no secret for the webhook id 'wh_1'"):
            newest_secret(secret, "wh_1")
    for secret in (lambda webhook_id: ("wh_1", NEW), f"{NEW}\n", {"wh_1": ("id", NEW)}):
        with pytest.raises(ConfigurationError):
            newest_secret(secret, "wh_1")


def test_the_secrets_that_a_setting_contains():
    assert written_secrets({"wh_1": NEW, "wh_2": [OTHER], "wh_3": Tenant("acme", OLD)}) == (NEW, OTHER, OLD)
    assert written_secrets((NEW, OLD)) == (NEW, OLD)
    assert written_secrets(None) == written_secrets(secret_later) == ()
