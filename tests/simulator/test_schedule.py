"""When the platform repeats a delivery, to the second, on a clock that the tests set."""

import pytest

from envoyou_core import ConfigurationError
from envoyou_core.simulator.database import Database
from envoyou_core.simulator.outbox import Outbox
from envoyou_core.simulator.registry import Registry
from envoyou_core.simulator.sender import Sender
from envoyou_core.simulator.transport import Answer, DeliveryError
from envoyou_core.simulator.trouble import Trouble
from envoyou_core.simulator.webhook import changes_of
from envoyou_core.testing import sample_event

BEGIN = 1_640_995_200.0
URL = "http://127.0.0.1:9/"
GUIDE = {"max_attempts": 5, "backoff_multiplier": 2, "initial_delay": 1000}


class Platform:
    """A sender without a network. Each request takes `seconds`, and is answered with the next of `answers`."""

    def __init__(self, answers, seconds=0.0, **options):
        self.now = BEGIN
        self.answers = iter(answers)
        self.seconds = seconds
        self.sent = []
        database = Database()
        trouble = options.pop("trouble", Trouble())
        self.registry = Registry(database, self.clock)
        self.outbox = Outbox(database, trouble)
        settings = {"trouble": trouble, "concurrency": 100, "on_attempt": lambda _: None}
        self.sender = Sender(self.outbox, self.registry, self, clock=self.clock, **(settings | options))

    def clock(self):
        return self.now

    async def post(self, url, delivery):
        self.sent.append(delivery)
        self.now += self.seconds
        answer = next(self.answers)
        if answer is None:
            raise DeliveryError("no answer")
        return Answer(answer, "")

    def add(self, count=1, **settings):
        webhook = self.registry.create(changes_of({"url": URL, "events": ["user.created"], **settings}, is_new=True))
        self.outbox.add([sample_event(webhook_id=None) for _ in range(count)], [webhook], self.now)
        return webhook

    async def run(self):
        """Set the clock to each moment at which a delivery is due, and return the moments of the attempts."""
        while (due := self.outbox.next_due()) is not None:
            self.now = max(self.now, due)
            await self.sender.deliver_due()
        return [attempt.sent_at - BEGIN for attempt in self.outbox.attempts()]


@pytest.mark.parametrize(
    ("policy", "moments"),
    [
        (None, [0, 1, 3, 7, 15]),
        (GUIDE, [0, 1, 3, 7, 15]),
        ({"max_attempts": 1}, [0]),
        ({"max_attempts": 4, "backoff_multiplier": 3, "initial_delay": 500}, [0, 0.5, 2, 6.5]),
        ({"max_attempts": 3, "backoff_multiplier": 1, "initial_delay": 60_000}, [0, 60, 120]),
        ({"max_attempts": 3, "initial_delay": 0}, [0, 0, 0]),
        ({"backoff_multiplier": 1.5, "max_attempts": 4}, [0, 1, 2.5, 4.75]),
    ],
)
async def test_a_delivery_that_fails_is_repeated_by_the_webhooks_policy(policy, moments):
    platform = Platform([500] * 9)
    platform.add(retry_policy=policy)
    assert await platform.run() == moments
    assert platform.outbox.count_unfinished() == 0
    assert [attempt.number for attempt in platform.outbox.attempts()] == list(range(1, len(moments) + 1))


async def test_delays_begin_when_the_attempt_before_has_ended():
    platform = Platform([None] * 5, seconds=10)
    platform.add()
    assert await platform.run() == [0, 11, 23, 37, 55]
    assert {attempt.seconds for attempt in platform.outbox.attempts()} == {10}
    assert {attempt.error for attempt in platform.outbox.attempts()} == {"no answer"}


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_success_ends_a_delivery(status):
    platform = Platform([500, None, 302, status])
    platform.add()
    assert await platform.run() == [0, 1, 3, 7]
    assert [attempt.delivered for attempt in platform.outbox.attempts()] == [False, False, False, True]


async def test_each_attempt_has_a_new_timestamp_and_nonce_and_the_same_body():
    platform = Platform([500] * 5)
    platform.add()
    await platform.run()
    timestamps = [int(delivery.headers["X-EnvoyOU-Timestamp"]) - BEGIN for delivery in platform.sent]
    assert timestamps == [0, 1, 3, 7, 15]
    assert len({delivery.headers["X-EnvoyOU-Nonce"] for delivery in platform.sent}) == 5
    assert len({delivery.body for delivery in platform.sent}) == 1


@pytest.mark.parametrize("change", [{"active": False}, None])
async def test_what_waits_for_a_webhook_that_is_no_longer_active_is_dropped(change):
    platform = Platform([500] * 5)
    webhook = platform.add()
    await platform.sender.deliver_due()
    if change is None:
        platform.registry.delete(webhook.id)
    else:
        platform.registry.update(webhook.id, change)
    assert await platform.run() == [0]
    assert platform.outbox.count_unfinished() == 0


async def test_a_changed_policy_applies_to_the_next_attempt():
    platform = Platform([500] * 5)
    webhook = platform.add()
    await platform.sender.deliver_due()
    platform.registry.update(webhook.id, changes_of({"retry_policy": {"max_attempts": 2}}, is_new=False))
    assert await platform.run() == [0, 1]


async def test_one_request_at_a_time_keeps_the_order():
    platform = Platform([200] * 20, concurrency=1)
    platform.add(count=20)
    await platform.run()
    assert [attempt.delivery for attempt in platform.outbox.attempts()] == list(range(1, 21))


async def test_at_most_so_many_requests_at_a_time():
    platform = Platform([200] * 3, concurrency=2)
    platform.add(count=3)
    await platform.sender.deliver_due()
    assert len(platform.sent) == 2


# Trouble


async def run_with(count=200, answers=200, **trouble):
    platform = Platform([answers] * count * 20, trouble=Trouble(**trouble))
    platform.add(count=count, secret="whsec_test", retry_policy={"max_attempts": 20, "initial_delay": 0})
    await platform.run()
    return platform


def chosen(platform):
    """Which deliveries were made when, without the ids, which are new in each run."""
    attempts = platform.outbox.attempts()
    return [(attempt.delivery, attempt.number, attempt.sent_at, attempt.error) for attempt in attempts]


async def test_the_seed_chooses_the_same_deliveries_again():
    trouble = {"duplicates": 0.2, "reordering": 0.2, "delays": 0.2, "dropped_answers": 0.2}
    runs = [chosen(await run_with(**trouble, seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


async def test_duplicates():
    platform = await run_with(duplicates=0.25)
    assert 225 <= len(platform.sent) <= 275
    assert len({attempt.event_id for attempt in platform.outbox.attempts()}) == 200


async def test_reordering_lets_later_deliveries_overtake():
    attempts = (await run_with(reordering=0.25)).outbox.attempts()
    order = [attempt.delivery for attempt in attempts]
    assert sorted(order) != order
    assert max(attempt.sent_at for attempt in attempts) - BEGIN <= 0.5


async def test_delays():
    attempts = (await run_with(delays=0.25, max_delay=60)).outbox.attempts()
    late = [attempt.sent_at - BEGIN for attempt in attempts if attempt.sent_at > BEGIN]
    assert 25 <= len(late) <= 75
    assert 30 < max(late) <= 60


async def test_a_dropped_answer_is_recorded_and_the_delivery_repeated():
    attempts = (await run_with(dropped_answers=0.25)).outbox.attempts()
    dropped = [attempt for attempt in attempts if attempt.error]
    assert 40 <= len(dropped) <= 100
    assert {(attempt.status, attempt.delivered) for attempt in dropped} == {(200, False)}
    assert len([attempt for attempt in attempts if attempt.delivered]) == 200


async def test_a_clock_that_is_fast_or_slow():
    for skew in (-400, 250.7):
        [delivery] = (await run_with(count=1, clock_skew=skew)).sent
        assert delivery.headers["X-EnvoyOU-Timestamp"] == str(int(BEGIN + skew))


async def test_repeated_nonces():
    platform = await run_with(answers=500, count=50, repeated_nonces=0.5)
    nonces = {}
    for attempt, delivery in zip(platform.outbox.attempts(), platform.sent, strict=True):
        nonces.setdefault(attempt.event_id, set()).add(delivery.headers["X-EnvoyOU-Nonce"])
    assert sorted({len(each) for each in nonces.values()}) == [1, 20]


def test_a_text_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigurationError, match="seed must be a number, got 'x'"):
        Trouble.from_texts(["seed=x"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"duplicates": 1.1},
        {"delays": -0.1},
        {"pretty_bodies": True},
        {"max_delay": float("inf")},
        {"clock_skew": float("nan")},
        {"seed": 0.5},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Trouble(**wrong)
