"""The paths of the blueprint, and the effect of Flask's features on it."""

from __future__ import annotations

from io import BytesIO

import pytest
from flask import Blueprint, Flask, request, url_for
from werkzeug.exceptions import HTTPException

from envoyou_core.testing import sample_event, sign_delivery
from envoyou_flask import create_blueprint
from tests.flask.conftest import PATH, SECRET, deliver, make_app


@pytest.mark.parametrize("prefix", [PATH, f"{PATH}/"])
@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_the_path_is_answered_with_and_without_a_final_slash_and_without_a_redirect(manual, prefix, path):
    assert deliver(make_app(manual, url_prefix=prefix), path=path).status_code == 200


@pytest.mark.parametrize("path", ["/hooks", "/hooks/more", "/hook", "/hooks//"])
def test_nothing_else_is_answered(manual, path):
    assert deliver(make_app(manual), path=path).status_code == 404


def test_blueprints_can_be_nested(manual):
    parent = Blueprint("parent", "parent")
    parent.register_blueprint(create_blueprint(manual), url_prefix="/envoyou")
    app = Flask("app")
    app.register_blueprint(parent, url_prefix="/webhooks")
    assert deliver(app, path="/webhooks/envoyou").status_code == 200
    with app.test_request_context():
        assert url_for("parent.envoyou.receive") == "/webhooks/envoyou/"


def test_a_prefix_may_contain_variables(manual):
    app = make_app(manual, url_prefix="/<tenant>/envoyou")
    assert deliver(app, path="/acme/envoyou").status_code == 200


def test_an_app_may_have_several_blueprints(make_webhooks, tmp_path):
    app = Flask("app")
    for name in ("first", "second"):
        webhooks = make_webhooks(name=name, handoff="manual")
        app.register_blueprint(create_blueprint(webhooks, name=name), url_prefix=f"/{name}")
    event = sample_event()
    assert deliver(app, event, path="/first").json == {"received": True}
    assert deliver(app, event, path="/second").json == {"received": True}


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "PROPFIND"])
def test_the_core_answers_every_method(manual, method):
    response = make_app(manual).test_client().open(PATH, method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json["error"] == "method_not_allowed"


READERS = {
    "get_data": lambda: request.get_data(),
    "data": lambda: request.data,
    "json": lambda: request.json,
    "form": lambda: request.form,
    "form, then data": lambda: (request.form, request.files, request.get_data()),
    "stream, unread": lambda: request.stream,
}


def read_before_the_view(app, read):
    @app.before_request
    def hook():
        read()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_hook_may_read_the_body_first(manual, read):
    app = make_app(manual)
    read_before_the_view(app, read)
    event = sample_event()
    assert deliver(app, event).status_code == 200
    assert manual.inbox.get(event.id).event.body == event.body


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_body_that_a_hook_has_read_is_verified(manual, read):
    app = make_app(manual)
    read_before_the_view(app, read)
    delivery = sign_delivery(sample_event(), secret="whsec_another")
    assert app.test_client().post(PATH, data=delivery.body, headers=delivery.headers).status_code == 401


class FailingInput:
    """A server's input of which every read fails."""

    def __init__(self, error):
        self.error = error

    def read(self, size=-1):
        raise self.error

    readline = read


class MalformedChunkError(Exception):
    pass


@pytest.mark.parametrize(("error", "status"), [(MalformedChunkError("zz"), 400), (ConnectionResetError(), 499)])
@pytest.mark.parametrize("bound", [None, 1_000_000])
@pytest.mark.parametrize("read", [None, *READERS.values()], ids=["unread", *READERS])
def test_an_unreadable_body_is_refused_by_view_and_hook(manual, caplog, read, bound, error, status):
    app = make_app(manual)
    app.config["MAX_CONTENT_LENGTH"] = bound
    if read:
        read_before_the_view(app, read)
    server = {"wsgi.input": FailingInput(error), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    delivery = sign_delivery(sample_event(), secret=SECRET)
    answer = app.test_client().post(PATH, headers=delivery.headers, environ_overrides=server)
    assert answer.status_code == status
    [record] = caplog.records
    assert record.getMessage().startswith(f"answered {status}: ")
    assert record.exc_info is None


@pytest.mark.parametrize("read", [None, *READERS.values()], ids=["unread", *READERS])
def test_a_disconnect_is_recognised_by_view_and_hook(manual, read):
    app = make_app(manual)
    if read:
        read_before_the_view(app, read)
    delivery = sign_delivery(sample_event(), secret=SECRET)
    length = {"CONTENT_LENGTH": str(len(delivery.body))}
    part = BytesIO(delivery.body[:10])
    answer = app.test_client().post(PATH, headers=delivery.headers, input_stream=part, environ_overrides=length)
    assert answer.status_code == 499


def declared(delivery):
    return {"data": delivery.body}


def chunked(delivery):
    return {"input_stream": BytesIO(delivery.body), "environ_overrides": {"wsgi.input_terminated": True}}


@pytest.mark.parametrize("body", [declared, chunked])
@pytest.mark.parametrize("read", [None, *READERS.values()], ids=["unread", *READERS])
def test_the_limit_of_the_app_has_our_response(manual, body, read):
    app = make_app(manual)
    if read:
        read_before_the_view(app, read)
    delivery = sign_delivery(sample_event(), secret=SECRET)

    def send():
        return app.test_client().post(PATH, headers=delivery.headers, **body(delivery))

    app.config["MAX_CONTENT_LENGTH"] = len(delivery.body) - 1
    response = send()
    assert (response.status_code, response.json["error"]) == (413, "payload_too_large")
    app.config["MAX_CONTENT_LENGTH"] = len(delivery.body)
    assert send().status_code == 200


def test_a_larger_limit_of_the_app_does_not_raise_ours(make_webhooks):
    app = make_app(make_webhooks(handoff="manual", max_body_size=100))
    app.config["MAX_CONTENT_LENGTH"] = 10_000
    assert deliver(app).json["error"] == "payload_too_large"


def test_error_handlers_of_the_app_do_not_change_responses(manual):
    app = make_app(manual)
    for handled in (401, 404, 405, 413, HTTPException, Exception):
        app.register_error_handler(handled, lambda error: ("the app's", 500))
    response = app.test_client().get(PATH)
    assert (response.status_code, response.json["error"]) == (405, "method_not_allowed")
    response = app.test_client().post(PATH, data=b"{}", content_type="application/json")
    assert (response.status_code, response.json["error"]) == (401, "unauthorized")
    assert app.test_client().get("/elsewhere").data == b"the app's"


def test_hooks_of_the_app_see_responses(manual):
    app = make_app(manual)

    @app.after_request
    def mark(response):
        response.headers["X-Seen"] = str(response.status_code)
        return response

    assert deliver(app).headers["X-Seen"] == "200"
