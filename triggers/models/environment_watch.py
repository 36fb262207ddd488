"""The table of environments whose changes somebody streams."""

from django.db import models

from workspaces.models import Environment


class EnvironmentWatch(models.Model):
    """Says that somebody streams the changes of an environment. Changes in others send no notification."""

    # The environment whose changes are streamed.
    environment = models.OneToOneField(Environment, primary_key=True, on_delete=models.CASCADE)
    # Until when streams are notified, by the database's clock. Each open stream moves it on.
    watched_until = models.DateTimeField()

    class Meta:
        db_table = "environment_watch"
