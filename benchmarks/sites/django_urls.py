import json

from django.http import JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from benchmarks.sites.variants import BARE, LEAN, PATH, RECEIVED, ROUTE, VARIANT, verified, work


@csrf_exempt
def bare(request):
    _ = request.body
    return JsonResponse(RECEIVED)


@csrf_exempt
def sample(request):
    payload = json.loads(request.body)
    if not verified(payload, *map(request.headers.get, ("X-EnvoyOU-Signature", "X-EnvoyOU-Timestamp"))):
        return JsonResponse({"detail": "Invalid signature"}, status=401)
    work(payload, request.body)
    return JsonResponse(RECEIVED)


if VARIANT == ROUTE:
    urlpatterns = [path(PATH.lstrip("/"), include("envoyou_django.urls"))]
else:
    urlpatterns = [path(PATH.lstrip("/"), bare if VARIANT in {BARE, LEAN} else sample)]
