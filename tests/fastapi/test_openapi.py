"""The OpenAPI document describes exactly what the core does."""

from __future__ import annotations

import json

import jsonschema
import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate

from envoyou_core import EVENT_TYPES, InvalidPayloadError, WebhookResponse
from envoyou_core.event import MAX_CREATED, Event
from envoyou_core.http import REFUSALS
from envoyou_core.testing import sample_event
from envoyou_fastapi import create_router, describe_webhooks
from tests.fastapi.conftest import PATH, TestClient, deliver

ALWAYS = {"X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"}
BY_DEFAULT = {"X-EnvoyOU-Webhook-ID", "X-EnvoyOU-Event-Type"}
NONCE = "X-EnvoyOU-Nonce"


def make_document(webhooks, **options):
    app = FastAPI(**options)
    app.include_router(create_router(webhooks), prefix=PATH)
    app.webhooks.include_router(describe_webhooks(webhooks))
    return app.openapi()


@pytest.fixture
def document(manual):
    return make_document(manual)


@pytest.fixture
def operation(document):
    return document["paths"][PATH]["post"]


def validator(document, schema):
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def body_of(operation):
    assert operation["requestBody"]["required"] is True
    return operation["requestBody"]["content"]["application/json"]


def test_the_document_is_valid(document):
    validate(document)


def test_every_refusal_of_the_contract_is_described_and_no_other(operation):
    described = {
        (int(status), code)
        for status, response in operation["responses"].items()
        if status not in {"200", "default"}
        for code in response["content"]["application/json"]["schema"]["properties"]["error"]["enum"]
    }
    assert described == {(error.status, error.code) for error in REFUSALS}
    assert operation["responses"].keys() == {"200", "default"} | {str(error.status) for error in REFUSALS}


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.__name__)
def test_a_response_is_as_described_headers_included(document, operation, error):
    answer = WebhookResponse.of_error(error())
    described = operation["responses"][str(error.status)]
    content = described["content"]["application/json"]
    validator(document, content["schema"]).validate(json.loads(answer.body))
    assert content["examples"][error.code]["value"] == json.loads(answer.body)
    headers = dict(answer.headers)
    assert headers.pop("Content-Type") == "application/json"
    assert {name: header["schema"]["const"] for name, header in described.get("headers", {}).items()} == headers


def test_the_responses_to_an_event_and_to_its_redelivery_are_as_described(manual, document, operation):
    app = FastAPI()
    app.include_router(create_router(manual), prefix=PATH)
    accepted = validator(document, operation["responses"]["200"]["content"]["application/json"]["schema"])
    event = sample_event()
    for expected in ({"received": True}, {"received": True, "duplicate": True}):
        answer = deliver(TestClient(app), event).json()
        assert answer == expected
        accepted.validate(answer)
    assert not accepted.is_valid({"received": False})


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, ALWAYS | BY_DEFAULT),
        ({"required_headers": ()}, ALWAYS),
        ({"required_headers": ("x-envoyou-nonce",)}, ALWAYS | {NONCE}),
        ({"endpoint_headers": {"X-Shop-Token": "a-value-of-this-endpoint"}}, ALWAYS | BY_DEFAULT | {"X-Shop-Token"}),
    ],
)
def test_headers_are_required_if_the_settings_require_them(make_webhooks, settings, required):
    document = make_document(make_webhooks(handoff="manual", **settings))
    assert "a-value-of-this-endpoint" not in json.dumps(document)
    operations = [item["post"] for item in (document["paths"][PATH], *document["webhooks"].values())]
    for operation in operations:
        headers = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert headers.keys() == ALWAYS | BY_DEFAULT | {NONCE} | required
        assert {name for name, header in headers.items() if header["required"]} == required
        assert {header["in"] for header in headers.values()} == {"header"}


@pytest.mark.parametrize(
    ("header", "right", "wrong"),
    [
        ("X-EnvoyOU-Signature", [f"v1,{64 * 'a'}"], ["", f"v1,{64 * 'A'}", f"v1,{63 * 'a'}", f"v2,{64 * 'a'}"]),
        ("X-EnvoyOU-Timestamp", ["0", 12 * "9"], ["", "-1", "1.0", 13 * "9", "1640995200s"]),
        ("X-EnvoyOU-Webhook-ID", ["wh_1"], [""]),
        ("X-EnvoyOU-Event-Type", ["user.created", "a.type.to.come"], [""]),
    ],
)
def test_headers_have_their_formats(document, operation, header, right, wrong):
    (parameter,) = (parameter for parameter in operation["parameters"] if parameter["name"] == header)
    form = validator(document, parameter["schema"])
    assert [value for value in right if not form.is_valid(value)] == []
    assert [value for value in wrong if form.is_valid(value)] == []


def test_the_type_is_the_discriminator_of_events(document, operation):
    known, any_event = body_of(operation)["schema"]["anyOf"]
    assert known["discriminator"]["propertyName"] == "type"
    mapping = known["discriminator"]["mapping"]
    assert list(mapping) == list(EVENT_TYPES)
    assert [choice["$ref"] for choice in known["oneOf"]] == list(mapping.values())
    for type_ in EVENT_TYPES:
        sample = json.loads(sample_event(type_).body)
        validator(document, known).validate(sample)
        validator(document, {"$ref": mapping[type_]}).validate(sample)
        fitting = [
            reference for reference in mapping.values() if validator(document, {"$ref": reference}).is_valid(sample)
        ]
        assert fitting == [mapping[type_]]
    assert not validator(document, known).is_valid(json.loads(sample_event("a.type.to.come").body))
    validator(document, any_event).validate(json.loads(sample_event("a.type.to.come").body))


def test_objects_are_described_if_the_guide_shows_them(document):
    schemas = document["components"]["schemas"]
    assert schemas["EnvoyouUser"]["required"] == ["id"]
    assert schemas["EnvoyouUser"]["properties"]["email"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert schemas["EnvoyouLogin"]["properties"]["location"]["anyOf"][0] == {
        "$ref": "#/components/schemas/EnvoyouLocation"
    }


def changed(**members):
    # With a fixed id and time, because they are part of the tests' names, which must be equal in all xdist processes.
    return {**json.loads(sample_event("user.created", id="evt_1", created=1640995200).body), **members}


@pytest.mark.parametrize(
    "body",
    [
        changed(),
        changed(type="a.type.to.come"),
        changed(data={"object": {}}),
        changed(data={"object": {"id": 5, "email": []}, "previous": None}),
        changed(id=""),
        changed(id=255 * "e"),
        changed(id=256 * "e"),
        changed(id="a\x1fb"),
        changed(id="a\x85b"),
        changed(id="evt_ü😀"),
        changed(id=5),
        changed(type=""),
        changed(created=-1),
        changed(created=0),
        changed(created=MAX_CREATED),
        changed(created=MAX_CREATED + 1),
        changed(created=True),
        changed(created="0"),
        changed(created=1.5),
        changed(webhook_id=None),
        changed(webhook_id=""),
        changed(webhook_id=5),
        changed(data=None),
        changed(data={}),
        changed(data={"object": []}),
        changed(more=1),
        {},
        [],
        None,
        "event",
        {name: value for name, value in changed().items() if name != "created"},
        {name: value for name, value in changed().items() if name != "webhook_id"},
    ],
    ids=str,
)
def test_a_body_matches_the_schema_if_and_only_if_the_core_accepts_it(document, operation, body):
    try:
        accepted = bool(Event.from_body(json.dumps(body).encode()))
    except InvalidPayloadError:
        accepted = False
    assert validator(document, body_of(operation)["schema"]).is_valid(body) is accepted


def test_there_is_an_example_of_each_type(document, operation):
    content = body_of(operation)
    assert list(content["examples"]) == list(EVENT_TYPES)
    for type_, example in content["examples"].items():
        assert example["value"]["type"] == type_
        validator(document, content["schema"]).validate(example["value"])


def test_each_type_is_one_of_the_documents_webhooks(document, operation):
    assert list(document["webhooks"]) == list(EVENT_TYPES)
    for type_, item in document["webhooks"].items():
        described = item["post"]
        assert described["responses"].keys() == operation["responses"].keys()
        content = body_of(described)
        assert list(content["examples"]) == [type_]
        validator(document, content["schema"]).validate(json.loads(sample_event(type_).body))
        assert not validator(document, content["schema"]).is_valid(json.loads(sample_event("a.type.to.come").body))


def test_the_application_may_add_to_the_responses_and_have_another_default(manual):
    from fastapi.responses import PlainTextResponse

    app = FastAPI(default_response_class=PlainTextResponse)
    app.include_router(create_router(manual), prefix=PATH, responses={429: {"description": "Too fast."}})
    responses = app.openapi()["paths"][PATH]["post"]["responses"]
    assert responses["429"]["description"] == "Too fast."
    assert responses["200"]["content"].keys() == {"application/json"}
