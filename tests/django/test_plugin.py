"""The pytest plugin in the tests of a Django project, which this one is: nothing is imported."""

import asyncio

import pytest
from django.db import transaction

from envoyou_core import ConfigurationError, PermanentError
from envoyou_core.testing import make_event
from envoyou_django import webhooks
from tests.django.conftest import SECRET
from tests.django.members.models import Member


def joined(name="Ada"):
    return make_event("member.joined", extra={"name": name})


@pytest.mark.parametrize("run", [1, 2])
def test_handlers_run_in_the_transaction_of_the_test(run, envoyou_deliver, envoyou_webhooks, envoyou_events):
    assert (Member.objects.count(), envoyou_webhooks.inbox.stats().total, len(envoyou_events)) == (0, 0, 0)
    event = joined()
    result = envoyou_deliver(event)
    assert result.processed
    assert result.response.json() == {"received": True}
    assert envoyou_deliver(event).duplicate
    assert Member.objects.get().name == "Ada"
    assert [accepted.event_id for accepted in envoyou_events.processed] == [event.id]
    assert envoyou_webhooks.inbox.get(event.id).status == "processed"


def test_on_commit_callbacks_run_and_a_handlers_exception_is_raised(envoyou_deliver, envoyou_events):
    committed = []

    @webhooks.on("shop.opened", name="on commit")
    def run_on_commit(event):
        transaction.on_commit(lambda: committed.append(event.id))

    @webhooks.on("shop.sold", name="fails")
    def fails(event):
        raise PermanentError("no such shop")

    assert [envoyou_deliver("shop.opened").event_id] == committed
    with pytest.raises(PermanentError, match="no such shop"):
        envoyou_deliver("shop.sold")
    assert envoyou_events.of("shop.sold")[0].dead


def test_a_forgery_and_other_settings(envoyou_deliver, envoyou_events, settings):
    assert envoyou_deliver(joined(), secret="whsec_other").status_code == 401
    settings.ENVOYOU = {"WEBHOOK_SECRET": "whsec_other"}
    assert envoyou_deliver(joined()).processed
    assert len(envoyou_events) == 1


@pytest.mark.django_db(transaction=True)
async def test_in_an_async_test(envoyou_adeliver):
    result = await envoyou_adeliver("member.invited", extra={"name": "Ada"})
    assert result.processed
    assert (await Member.objects.aget()).name == "Ada"


async def test_an_async_test_with_a_transaction_is_refused_with_the_remedy(envoyou_adeliver):
    with pytest.raises(ConfigurationError, match=r"needs the mark @pytest\.mark\.django_db\(transaction=True\)"):
        await envoyou_adeliver(joined())


class TestTheProxyAndTheObject:
    @pytest.fixture(params=["proxy", "object"])
    def envoyou_app(self, request):
        return webhooks if request.param == "proxy" else webhooks.setup()

    @pytest.fixture
    def envoyou_path(self):
        return "/webhooks/envoyou/"

    def test_it(self, envoyou_deliver, settings):
        settings.ENVOYOU = {"WEBHOOK_SECRET": SECRET}
        result = envoyou_deliver(joined())
        assert (result.path, result.processed) == ("/webhooks/envoyou/", True)


def test_a_sync_test_may_call_the_async_application(envoyou_adeliver):
    from asgiref.sync import async_to_sync

    result = async_to_sync(envoyou_adeliver)(joined())
    assert result.processed
    assert asyncio.iscoroutinefunction(type(envoyou_adeliver).__call__)
