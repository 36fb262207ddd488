"""Answers /api/docs, which is public: the schema in Swagger UI, and the documents that people read who call the API."""

import posixpath
import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

from pipedai.api.schema.reference import anchor
from pipedai.env import BASE_DIR

if TYPE_CHECKING:
    from markdown_it.token import Token

# The documents that are served, below /api/docs under their own paths, so that their links lead from one to another.
# A link to any other file is shown as plain text.
SERVED = (
    "API.md",
    "docs/first-trigger.md",
    "docs/glossary.md",
    "docs/clients.md",
    "docs/hosts.md",
    "docs/notices.md",
    "docs/approvals.md",
    "docs/connections.md",
    "docs/conformance.md",
)


@require_safe
def docs_page(request: HttpRequest) -> HttpResponse:
    """Answers GET /api/docs: the schema in Swagger UI, with all files from this server (SPEC §5)."""
    return render(request, "pipedai/docs.html")


@require_safe
def document_page(request: HttpRequest, name: str) -> HttpResponse:
    """Answers GET /api/docs/API.md and the like: one of the documents as a page."""
    if name not in SERVED:
        raise Http404
    title, contents, text = _rendered(name)
    context = {"title": title, "contents": contents, "text": text}
    return render(request, "pipedai/document.html", context)


@cache
def _rendered(name: str) -> tuple[str, list[tuple[str, str]], SafeString]:
    """Returns the title of a document, the anchor and text of each of its chapters, and its HTML."""
    # A process that is never asked for a document doesn't import this.
    from markdown_it import MarkdownIt

    # HTML in the document would be shown as text.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse((BASE_DIR / name).read_text())
    headings = [
        (opening, following.content.replace("`", ""))
        for opening, following in pairwise(tokens)
        if opening.type == "heading_open"
    ]
    for opening, text in headings:
        opening.attrSet("id", anchor(text))
    for token in tokens:
        _hide_links(token.children or [], posixpath.dirname(name))
    for token, following, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type == "th_open" and not following.content:
            token.tag = closing.tag = "td"  # The head of a column without a name is none.
    chapters = [(anchor(text), text) for opening, text in headings if opening.tag == "h2"]
    # The template has the title, which is the first three tokens.
    html = markdown.renderer.render(tokens[3:], markdown.options, {})
    return headings[0][1], chapters, mark_safe(html)  # noqa: S308 - the text is a file of ours


def _hide_links(tokens: "list[Token]", folder: str) -> None:
    """Takes away the links to files that are not served, and leaves their text."""
    is_hidden = False
    for token in tokens:
        if token.type == "link_open":
            is_hidden = not _is_served(str(token.attrGet("href")), folder)
        if token.type in {"link_open", "link_close"}:
            token.hidden = is_hidden


def _is_served(href: str, folder: str) -> bool:
    if re.match(r"https?:|#", href):
        return True
    return posixpath.normpath(posixpath.join(folder, href.partition("#")[0])) in SERVED
