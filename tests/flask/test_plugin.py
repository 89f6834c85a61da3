"""The pytest plugin in the tests of a Flask app."""

from tests.core.test_plugin import run  # noqa: F401 - a fixture

pytest_plugins = ["pytester"]

APP = """
from flask import Flask, abort, current_app, request
from envoyou_flask import Envoyou

envoyou = Envoyou()

@envoyou.on("user.created")
def welcome(event):
    print("Welcome to", current_app.name)

def create_app(name="shop", prefix="/webhooks/envoyou"):
    app = Flask(name)
    app.config["ENVOYOU_WEBHOOK_SECRET"] = "whsec_test"
    app.config["ENVOYOU_INBOX"] = "sqlite:///never_created.db"
    envoyou.init_app(app, url_prefix=prefix)

    @app.before_request
    def only_from_here():
        if request.remote_addr != "127.0.0.1":
            abort(403)

    return app
"""

OF_A_FACTORY = """
def test_it(envoyou_deliver, envoyou_webhooks, app, capsys):
    result = envoyou_deliver("user.created")
    assert result.processed
    assert result.response.json == {"received": True}
    assert capsys.readouterr().out == f"Welcome to {app.name}\\n"
    assert envoyou_webhooks is app.extensions["envoyou"]["envoyou"]

def test_it_again(envoyou_deliver, envoyou_events):
    assert not envoyou_events
    assert envoyou_deliver("user.created").processed
"""


def test_an_app_of_a_factory_that_a_fixture_returns(run, pytester):  # noqa: F811
    pytester.makeconftest(
        """
        import pytest
        from shop import create_app

        @pytest.fixture
        def app(request):
            return create_app(request.node.name, "/hooks")
        """
    )
    result = run(OF_A_FACTORY, shop=APP)
    result.assert_outcomes(passed=2)
    assert not list(pytester.path.rglob("*.db"))


def test_a_factory_a_client_and_an_app_with_several_webhooks(run, pytester):  # noqa: F811
    pytester.makeini("[pytest]\nenvoyou_app = shop:create_app()")
    result = run(
        """
        import pytest
        from envoyou_core import Webhooks
        from envoyou_flask import create_blueprint
        from envoyou_core.wsgi import webhooks_entry
        from shop import create_app

        other = Webhooks(secret="whsec_other")
        other.on("*")(lambda event: None)

        def test_a_factory(envoyou_deliver):
            assert envoyou_deliver().processed

        class TestAClient:
            @pytest.fixture
            def envoyou_app(self):
                client = create_app().test_client()
                client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
                return client

            def test_it(self, envoyou_deliver):
                assert envoyou_deliver().status_code == 403

        class TestSeveral:
            @pytest.fixture
            def envoyou_app(self):
                app = create_app()
                app.register_blueprint(create_blueprint(other, "other"), url_prefix="/other")
                app.register_blueprint(create_blueprint(other, "hooks"), url_prefix="/<shop>/hooks")
                return app

            @pytest.fixture(params=[None, "/other", "/north/hooks"])
            def envoyou_path(self, request):
                return request.param

            def test_it(self, envoyou_deliver, envoyou_path, envoyou_webhooks):
                if envoyou_path == "/other":
                    assert envoyou_webhooks is other
                assert envoyou_deliver().processed

        class TestWithParameters:
            @pytest.fixture
            def envoyou_app(self):
                from flask import Flask
                app = Flask("shops")
                app.register_blueprint(create_blueprint(other), url_prefix="/<shop>/hooks")
                return app

            def test_it(self, envoyou_deliver): ...

            class TestWithValues:
                @pytest.fixture
                def envoyou_path(self):
                    return "/north/hooks"

                def test_it(self, envoyou_deliver):
                    assert envoyou_deliver().processed

        class TestAWrappedApplication:
            @pytest.fixture
            def envoyou_app(self):
                return webhooks_entry(create_app(), other, path="/outside")

            def test_it(self, envoyou_deliver):
                result = envoyou_deliver()
                assert (result.path, result.processed) == ("/outside", True)

        class TestNoEndpoint:
            @pytest.fixture
            def envoyou_app(self):
                return create_app

            def test_it(self, envoyou_deliver): ...
        """,
        shop=APP,
    )
    # None of the webhooks has started a worker.
    assert not list(pytester.path.rglob("*.db"))
    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*several Webhooks, at /<shop>/hooks, /other, /webhooks/envoyou: name the path by a fixture envoyou_path",
            "*the path /<shop>/hooks has parameters: return one with values from a fixture envoyou_path",
            "*the application builtins.function has no endpoint*",
        ]
    )


def test_async_tests_of_a_sync_application(run, pytester):  # noqa: F811
    pytester.makeini("[pytest]\nenvoyou_app = shop:create_app()")
    result = run(
        """
        import asyncio

        def test_it(envoyou_adeliver):
            assert asyncio.run(envoyou_adeliver("user.created")).processed
        """,
        shop=APP,
    )
    result.assert_outcomes(passed=1)
