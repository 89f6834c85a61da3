from __future__ import annotations

from crash_points import AfterTheAnswer
from flask import Flask
from hooks import webhooks

from envoyou_flask import create_blueprint

app = Flask(__name__)
app.register_blueprint(create_blueprint(webhooks), url_prefix="/webhooks/envoyou")
app.wsgi_app = AfterTheAnswer(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/health")
def health() -> str:
    return "well"
