"""Found by itself: nothing imports this module."""

from envoyou_core import Event
from envoyou_django import webhooks
from tests.django.members.models import Member

# Types that nobody else's tests use: these handlers are there for all of this process.


@webhooks.on("member.joined")
def join(event: Event) -> None:
    Member.objects.create(name=event.data.object["name"])


@webhooks.on("member.invited")
async def invite(event: Event) -> None:
    await Member.objects.acreate(name=event.data.object["name"])
