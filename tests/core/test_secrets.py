"""Which secrets a request is checked against."""

import pytest

from envoyou_core import ConfigurationError, Tenant
from envoyou_core.errors import UnknownEndpointError
from envoyou_core.reception.secrets import key_source


def signature(keys):
    return [key.signature(b"1", b"{}") for key in keys]


@pytest.mark.parametrize("webhook_id", [None, "wh_1", "wh_2"])
def test_fixed_secrets_are_the_same_for_every_request(webhook_id):
    source = key_source(["newest", "oldest"])
    assert source.blocking is False
    keys = source.find(webhook_id)
    assert (keys.tenant, len(keys.keys)) == ("", 2)


@pytest.mark.parametrize("secret", [None, "", b"", " ", [], [""], 3, object()])
def test_no_secret_is_a_configuration_error_at_once(secret):
    with pytest.raises(ConfigurationError):
        key_source(secret)


def test_a_callable_is_asked_with_the_webhook_id():
    asked = []

    def find(webhook_id):
        asked.append(webhook_id)
        return "whsec_a"

    source = key_source(find)
    assert source.blocking is True
    keys = source.find("wh_1")
    assert (asked, keys.tenant) == (["wh_1"], "wh_1")
    assert signature(keys.keys) == signature(key_source("whsec_a").find(None).keys)


def test_a_callable_may_return_several_secrets():
    keys = key_source(lambda webhook_id: ["newest", b"oldest"]).find("wh_1")
    assert (keys.tenant, len(keys.keys)) == ("wh_1", 2)


def test_a_tenant_may_have_several_endpoints():
    source = key_source(lambda webhook_id: Tenant("acme", ["whsec_a"]))
    assert source.find("wh_1").tenant == source.find("wh_2").tenant == "acme"


@pytest.mark.parametrize("nothing", [None, "", b"", []])
def test_a_webhook_id_without_a_secret_is_an_unknown_endpoint(nothing):
    with pytest.raises(UnknownEndpointError):
        key_source(lambda webhook_id: nothing).find("wh_1")


def test_without_a_webhook_id_the_callable_is_not_asked():
    def find(webhook_id):
        raise AssertionError("it was asked")

    with pytest.raises(UnknownEndpointError):
        key_source(find).find(None)


@pytest.mark.parametrize("found", [[""], Tenant("acme", ""), Tenant("acme", []), 3])
def test_an_empty_secret_from_a_callable_is_never_an_open_door(found):
    with pytest.raises(ConfigurationError):
        key_source(lambda webhook_id: found).find("wh_1")


def test_a_tenants_repr_shows_no_secret():
    assert repr(Tenant("acme", "whsec_private")) == "Tenant('acme')"
