from flask import Flask, request

from benchmarks.sites.variants import BARE, LEAN, PATH, RECEIVED, ROUTE, VARIANT, make_webhooks, verified, work
from envoyou_core.wsgi import webhooks_entry
from envoyou_flask import create_blueprint

app = Flask(__name__)

if VARIANT == ROUTE:
    app.register_blueprint(create_blueprint(make_webhooks()), url_prefix=PATH)
elif VARIANT in {BARE, LEAN}:

    @app.post(PATH)
    def bare():
        request.get_data()
        return RECEIVED

else:

    @app.post(PATH)
    def sample():
        body = request.get_data()
        payload = request.get_json()
        if not verified(payload, *map(request.headers.get, ("X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"))):
            return {"detail": "Invalid signature"}, 401
        work(payload, body)
        return RECEIVED


if VARIANT == LEAN:
    app.wsgi_app = webhooks_entry(app.wsgi_app, make_webhooks(), path=PATH)
