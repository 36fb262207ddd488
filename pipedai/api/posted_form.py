"""Lets throttles and the origin check, which are made for API requests, read a form that one of our pages posts."""

from typing import Any

from rest_framework.request import Request


class PostedForm(Request):
    """A request whose `data` is the form as Django parsed it, `request.POST`, which the page's view reads too.

    DRF would parse the body a second time by its own rules. Then a throttle could count another value than the one that
    the view uses.
    """

    @property
    def data(self) -> Any:
        """Returns the form's fields. If a field was sent twice, the last value counts, as in `request.POST`."""
        return self._request.POST
