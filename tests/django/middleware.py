"""Middleware that gets at the body before the view does."""


def reads_the_body(get_response):
    def middleware(request):
        request.seen = request.body
        return get_response(request)

    return middleware


def asks_for_the_form(get_response):
    def middleware(request):
        request.seen = request.POST
        return get_response(request)

    return middleware


class ContentSecurityPolicy:
    """Allows nothing but what the site itself serves."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response
