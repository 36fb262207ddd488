"""Lets code made for API requests, such as throttles and the origin check, read a form of one of our HTML pages."""

from typing import Any

from rest_framework.request import Request


class PostedForm(Request):
    """A Django request whose `data` is `request.POST`: the form as Django parsed it and as the page's view reads it.

    DRF would parse the body again by other rules, so that a throttle might count another value than the view uses.
    """

    @property
    def data(self) -> Any:
        """Returns the form's fields. If a field was sent twice, the last value counts, as in `request.POST`."""
        return self._request.POST
