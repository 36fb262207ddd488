"""The OpenAPI schema: made of what the viewsets declare, the serializers, each app's schema.py, and API.md.

`manage.py spectacular` writes it to docs/openapi.json (CONTRIBUTING.md has the command); the service serves that file.
"""
