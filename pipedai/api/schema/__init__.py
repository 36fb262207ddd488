"""Makes the OpenAPI schema from the viewsets' declarations, the serializers, and the prose of API.md.

`manage.py spectacular` writes it to docs/openapi.json (CONTRIBUTING.md has the command); the service serves that file.
"""
