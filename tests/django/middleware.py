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
