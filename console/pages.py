"""The parts that all screens of the console share: checks before a screen, the page of a refusal, common answers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import wraps
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.middleware.gzip import GZipMiddleware
from django.shortcuts import render
from django.urls import reverse
from django.utils.encoding import iri_to_uri
from django.utils.http import url_has_allowed_host_and_scheme

from console.asking import REFUSED, Json, Refused, ask, ask_if_free, role_of
from console.forms import Form, Look
from console.templatetags.console import may
from pipedai.api.authentication import is_from_own_page

Screen = Callable[..., HttpResponse]

HOME = "/console/"
_COMPRESSED = GZipMiddleware(lambda _: HttpResponse())
# Django redirects to no URL of more than 2,048 characters, and quoting one in another makes it up to thrice as long.
_LONGEST_NEXT = 600


def screen(view: Screen) -> Screen:
    """Makes a view of the console from a function or method that takes a request and the ids of its URL.

    A POST must come from a page of this service, and so needs no CSRF token. An API refusal that the function does not
    catch becomes a page with the API's status; a visitor without a session is sent to sign in. The page of a refusal
    says when to try again, if the API says it. Pages are compressed.
    """

    @wraps(view)
    def answer(*given: Any, **ids: UUID) -> HttpResponse:
        request: HttpRequest = given[-1]
        if request.method not in {"GET", "HEAD", "POST"}:
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        if request.method == "POST" and not is_from_own_page(request):
            return problem(request, 403, ["This form was sent from a page of another site."])
        try:
            response = view(*given, **ids)
        except Refused as refused:
            if refused.status == 401:
                return _sign_in(request)
            response = problem(request, refused.status, refused.sentences)
        last: Refused | None = request.META.get(REFUSED)
        if last and last.retry_after and last.status == response.status_code:
            response["Retry-After"] = last.retry_after
        _COMPRESSED.process_response(request, response)
        return response

    return answer


def _sign_in(request: HttpRequest) -> HttpResponse:
    """Sends a visitor without a session to sign in. A form that they sent is not lost: the answer is a page that sends
    the form again when the browser reloads it.
    """
    path = sign_in_path(request)
    if request.method != "POST" or "HX-Request" in request.headers:
        return see_other(request, path)
    said = "Sign in in another tab, and then reload this page, which sends your form again."
    context = {"title": "Your session has ended", "sentences": [said], "path": path, "tab": True}
    return render(request, "pipedai/problem.html", context, status=401)


_TITLES = {
    403: "You may not do this",
    404: "There is no such page, or you may not see it",
    409: "This can't be done now",
    429: "Too often in too short a time",
    503: "Unavailable",
}


def problem(
    request: HttpRequest, status: int, sentences: list[str], path: str = ""
) -> HttpResponse:
    """Renders an API refusal as a page with its status. `path` is the page for another try, if it is not this one."""
    # The title of a 404 already says that nothing was found.
    said = [] if status == 404 else sentences
    title = _TITLES.get(status, "This can't be done")
    again = request.get_full_path() if status in {429, 503} and request.method != "POST" else HOME
    context = {"title": title, "sentences": said, "path": path or again}
    return render(request, "pipedai/problem.html", context, status=status)


def see_other(request: HttpRequest, path: str) -> HttpResponse:
    """Sends the browser to another page of ours. A request of htmx gets a header instead that makes the browser leave
    the page, because htmx would put a redirect's page into a part of the present one.
    """
    if "HX-Request" in request.headers:
        return HttpResponse(headers={"HX-Redirect": iri_to_uri(path)})
    return HttpResponseRedirect(path, status=303)


def sign_in_path(request: HttpRequest) -> str:
    """Returns the path of the sign-in page that leads back to the page that was asked for."""
    asked = request.get_full_path()
    if part_of := request.headers.get("HX-Current-URL"):
        # The address may be no URL at all, which urlsplit would refuse.
        asked = "/" + part_of.partition("?")[0].split("/", 3)[-1]
    elif request.method == "POST" or len(asked) > _LONGEST_NEXT:
        asked = request.path
    return f"{reverse('console:sign-in')}?{urlencode({'next': asked})}"


def safe_next(request: HttpRequest) -> str:
    """Returns the page that `next` names if it is ours, or else the console's first page."""
    path = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None)
    return path if is_ours and len(path) <= _LONGEST_NEXT else HOME


def environment_of(request: HttpRequest, environment_id: UUID | str) -> Json:
    """Returns the environment of a page, with the visitor's `role` in it. The page's header shows it."""
    return ask(request, "GET", f"environments/{environment_id}").data


def overview_of(request: HttpRequest, environment_id: UUID | str) -> Json:
    """Returns the figures of an environment, which the frame of each of its pages shows. One request of a page reads
    them only once. They are empty while the API is too busy.
    """
    path = f"environments/{environment_id}/dashboard/overview"
    if path not in request.META:
        request.META[path] = ask_if_free(request, "GET", path)
    found: Json = request.META[path]
    return found


# The entries of the menu, which are also the names of their pages and icons.
MENU = (
    "attention",
    "triggers",
    "runs",
    "approvals",
    "machines",
    "connections",
    "money",
    "settings",
)


def _frame(request: HttpRequest, environment: Json, needs: str) -> Json:
    """Returns the menu with the numbers behind its entries. If the visitor's role is lower than the page `needs`, also
    returns the address of a person who may do what the page offers.
    """
    figures = overview_of(request, environment["id"])
    tones = {"attention": "bad", "approvals": "warn"}
    menu = [
        {
            "name": name,
            "word": name.capitalize(),
            "path": reverse(f"console:{name}", args=[environment["id"]]),
            "count": figures.get(name) if name in tones else None,
            "tone": tones.get(name),
        }
        for name in MENU
    ]
    if not needs or may(environment, needs):
        return {"menu": menu}
    members = ask_if_free(request, "GET", f"environments/{environment['id']}/members")
    able = [each for each in members.get("items", ()) if may(each, needs)]
    helper = able[0]["email"] if able else f"an {needs}"
    article = "an" if environment["role"] == "operator" else "a"
    return {"menu": menu, "helper": helper, "article": article}


def show(
    request: HttpRequest,
    environment: Json | UUID | str,
    menu: str,
    template: str,
    context: Json,
    page: Json | None = None,
    *,
    status: int = 200,
    needs: str = "",
) -> HttpResponse:
    """Renders a screen of an environment, which is given as the row or its id. `menu` is its entry in the menu, and
    `page` the page of a list on it. A visitor whose role is lower than the screen `needs` is told so first.
    """
    if not isinstance(environment, dict):
        environment = environment_of(request, environment)
    context |= {"environment": environment, "menu": menu}
    context |= pages_beside(request, page) if page else {}
    context["frame"] = _frame(request, environment, needs)
    return render(request, f"console/{template}.html", context, status=status)


def form_page(
    request: HttpRequest,
    form: Form,
    to: Callable[[Json], str],
    template: str = "console/form.html",
    **context: Any,
) -> HttpResponse:
    """Shows a form that belongs to no environment. Once it is sent, opens the path that `to` makes from the API's
    answer, and passes the answer's cookies on.
    """
    if answer := form.send(request):
        response = see_other(request, to(answer.data))
        response.cookies.update(answer.cookies)
        return response
    return render(request, template, {"form": form, **context}, status=form.status)


def destroy(
    request: HttpRequest,
    environment: Json | UUID | str,
    path: str,
    *,
    menu: str,
    method: str = "DELETE",
    to: str = "",
    read: Callable[[str], str] = str,
    **said: Any,
) -> HttpResponse:
    """Asks before deleting what is at `path`, because that can't be undone, and deletes it on a POST. If the API
    refuses, the reason stands above the question. The values of the question's fields become the query, after `read`
    has converted each. `title`, `text` and `button` are the page's, `back` is the path of "Keep it", and `to` the next
    one.
    """
    status = 200
    if request.method == "POST":
        query = {name: read(str(value)) for name, value in request.POST.items() if value}
        try:
            ask(request, method, path, query=query)
            return see_other(request, to or said["back"])
        except Refused as refused:
            if refused.status != 409:
                raise
            status, said["problems"] = 409, refused.sentences
    needs = role_of(method, path)
    return show(request, environment, menu, "confirm", said, status=status, needs=needs)


@dataclass(frozen=True, kw_only=True)
class ResourceScreens:
    """The screens that make, change and delete an environment's rows of one kind, such as pools."""

    # The word for one row. The path of the API has this word with an `s`.
    noun: str
    menu: str
    # Returns the looks of the form's fields for a row of the API. A new row has the form's initial values, and no id.
    looks: Callable[[HttpRequest, Json], Mapping[str, Look]]
    # What else a deletion does, and what it keeps.
    deleting: str
    # The page that lists an environment's rows, and the page of one row with the name of its id in the URL.
    listed: str
    page: str
    of: str = "id"
    # The initial values of a new row's form where the API has no default. A change shows them in place of null.
    usual: Mapping[str, Any] = field(default_factory=dict)
    # Whether the form also shows the body's other fields, after those of `looks`.
    complete: bool = False
    # The field that chooses among the forms for a new row, and what people read for each of its values.
    chooses: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @screen
    def new(self, request: HttpRequest, environment_id: UUID) -> HttpResponse:
        row, title = {**self.usual, "environmentId": str(environment_id)}, f"New {self.noun}"
        if self.chooses:
            word = request.GET.get(self.chooses, "")
            row[self.chooses] = word if word in self.choices else next(iter(self.choices))
            title += f": {self.choices[row[self.chooses]]}"
        looks = dict(self.looks(request, row))
        if self.chooses:
            looks[self.chooses] = Look(kind="hidden")
        path = f"environments/{environment_id}/{self.noun}s"
        form = Form("POST", path, looks, values=row, complete=self.complete)
        said = {"title": title, "button": f"Make the {self.noun}"}
        said["back"] = reverse(self.listed, args=[environment_id])
        return self.answer(request, row, form, said)

    @screen
    def edit(self, request: HttpRequest, **ids: UUID) -> HttpResponse:
        row = self.find(request, **ids)
        said = {"title": f"Edit {_name_of(row)}", "button": "Save", "back": self.page_of(row)}
        return self.answer(request, row, self.form(request, row), said)

    @screen
    def delete(self, request: HttpRequest, **ids: UUID) -> HttpResponse:
        return self.ask_to_delete(request, self.find(request, **ids))

    def ask_to_delete(self, request: HttpRequest, row: Json, **said: Any) -> HttpResponse:
        said |= {"title": f"Delete {_name_of(row)}?", "text": self.deleting, "button": "Delete it"}
        said |= {"back": self.page_of(row), "to": reverse(self.listed, args=[row["environmentId"]])}
        path = f"{self.noun}s/{row['id']}"
        return destroy(request, row["environmentId"], path, menu=self.menu, **said)

    def find(self, request: HttpRequest, **ids: UUID) -> Json:
        """Returns the row that a page's URL names."""
        (id_,) = ids.values()
        return ask(request, "GET", f"{self.noun}s/{id_}").data

    def form(self, request: HttpRequest, row: Json) -> Form:
        """Returns the form that changes a row."""
        usual = {name: value for name, value in self.usual.items() if row[name] is None}
        path, looks = f"{self.noun}s/{row['id']}", self.looks(request, row)
        return Form("PATCH", path, looks, values=row | usual, complete=self.complete)

    def page_of(self, row: Json) -> str:
        return reverse(self.page, args=[row[self.of]])

    def answer(self, request: HttpRequest, row: Json, form: Form, said: Json) -> HttpResponse:
        """Shows the form of a row, or opens the row's page once the form is sent."""
        if answer := form.send(request):
            return see_other(request, self.page_of(answer.data))
        said["form"] = form
        where, needs = row["environmentId"], form.needs
        return show(request, where, self.menu, "form", said, status=form.status, needs=needs)


def _name_of(row: Json) -> str:
    return str(row.get("name") or row["label"])


# The largest page of a list in the API.
MOST = 200


def all_of(request: HttpRequest, environment_id: UUID | str, kind: str, **query: Any) -> list[Json]:
    """Returns an environment's rows of a kind, such as `workers`, but at most one page of the API."""
    path = f"environments/{environment_id}/{kind}"
    found: list[Json] = ask(request, "GET", path, query={"limit": MOST, **query}).data["items"]
    return found


def names_of(
    request: HttpRequest, environment_id: UUID | str, kind: str, **query: Any
) -> dict[str, str]:
    """Returns the rows of `all_of` as names by ids, sorted by name, for a person to choose from."""
    names = {each["id"]: _name_of(each) for each in all_of(request, environment_id, kind, **query)}
    return dict(sorted(names.items(), key=lambda each: each[1].lower()))


def listed(
    request: HttpRequest, environment_id: UUID, kind: str, *filters: str, **query: Any
) -> Json:
    """Returns a page of an environment's rows of a kind, with the filters and the cursor of the page's URL."""
    query |= chosen(request, *filters)
    return ask(request, "GET", f"environments/{environment_id}/{kind}", query=query).data


def pages_beside(request: HttpRequest, page: Json) -> Json:
    """Returns the links from a page of a list to the `newer` and the `older` page with the same filters; None if there
    is none. A page knows only the cursor of the page before it, so from there the way back leads to the first page.
    """
    query = request.GET.dict()
    before, cursor = query.pop("before", ""), query.pop("cursor", "")
    newer = urlencode({**query, **({"cursor": before} if before else {})}) if cursor else None
    later = page["nextCursor"] and urlencode(
        {**query, "cursor": page["nextCursor"], **({"before": cursor} if cursor else {})}
    )
    return {"newer": newer if newer is None else f"?{newer}", "older": later and f"?{later}"}


def chosen(request: HttpRequest, *names: str) -> dict[str, str]:
    """Returns the filters and the cursor of the page's URL that have a value, under their names in the API."""
    return {name: value for name in (*names, "cursor") if (value := request.GET.get(name))}


# A chip of a list: its text, the filters that it sets, and the names in `counts` of the rows that it keeps.
Chip = tuple[str, Mapping[str, str], Iterable[str]]


def chips_of(
    request: HttpRequest, kinds: Iterable[Chip], counts: Mapping[str, int], *, keeps: bool = False
) -> list[Json]:
    """Returns the chips of a list with the numbers of rows that they keep; the first one keeps all rows. Their links
    drop other filters. With `keeps` they leave them, and have no numbers, because nobody has counted such rows.
    """
    chips: list[Chip] = [("All", {}, ()), *kinds]
    own = {name for _, query, _ in chips for name in query}
    asked = {name: value for name, value in request.GET.dict().items() if value}
    now = {name: asked[name] for name in own & asked.keys()}
    dropped = {*own, "cursor", "before"} if keeps else asked.keys()
    others = {name: value for name, value in asked.items() if name not in dropped}
    if all(query != now for _, query, _ in chips):
        chips.append(("As in the link", now, ()))
    found = []
    for said, query, names in chips:
        number = 0 if others else sum(counts.get(name, 0) for name in names)
        link, count = urlencode({**others, **query}), "99+" if number > 99 else number
        found.append({"said": said, "query": link, "is_chosen": query == now, "count": count})
    return found


def midnight(day: date) -> datetime:
    """Returns the beginning of a day in UTC, because the API counts days in UTC unless a request names a zone."""
    return datetime.combine(day, time(), UTC)
