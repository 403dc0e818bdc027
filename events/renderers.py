from rest_framework.renderers import JSONRenderer


class ORJSONRenderer(JSONRenderer):
    pass
