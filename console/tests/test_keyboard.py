"""What one does in the console without a mouse, besides the story: lists, searches, rows, and what is folded."""

import pytest

from console.tests.test_browser import browsing, sign_in
from console.tests.test_story import KeyboardPerson
from testing.world.cast import session_cookie

pytestmark = pytest.mark.long


def test_everything_is_reached_and_worked_by_the_keyboard(committed_stage, server):
    cookie, here = session_cookie(committed_stage.cast.owner), "environments/{environment_id}/"
    here = here.format(**committed_stage.ids)
    with browsing(server) as page:
        sign_in(page, cookie)
        grace, keys = KeyboardPerson(page, scripts=True), page.keyboard

        # The first Tab leads past the menu.
        page.goto(here + "attention")
        keys.press("Tab")
        assert grace.focused() == ("link", "Skip to the content")
        keys.press("Enter")
        keys.press("Tab")
        assert page.evaluate("document.querySelector('main').contains(document.activeElement)")

        # Escape leads back to where somebody was before they looked for something.
        before = grace.focused()
        keys.press("Control+k")
        keys.type("report")
        page.wait_for_selector("#find .found a")
        keys.press("ArrowDown")
        assert page.evaluate("document.activeElement.matches('#find .found a')")
        keys.press("ArrowUp")
        assert grace.focused()[0] == "searchbox"
        for _ in ("empties the field", "closes the dialog"):
            keys.press("Escape")
        assert grace.focused() == before
        grace.go_to("Find")
        keys.press("Enter")
        assert grace.focused()[0] == "searchbox"
        keys.type("machines")
        page.wait_for_selector("#find .found a:has-text('Machines')")
        with page.expect_navigation():
            keys.press("Enter")
        page.wait_for_selector("h1:has-text('Machines')")

        # In a list j and k move, / filters, and a chip is a link.
        page.goto(here + "triggers")
        keys.press("j")
        first = grace.focused()
        keys.press("k")
        assert grace.focused() == first
        assert first[0] == "link"
        keys.press("/")
        assert grace.focused()[0] == "searchbox"
        keys.type(first[1])
        with page.expect_navigation():
            keys.press("Enter")
        grace.press("All")

        # One chooses several with Space, and is asked before what can't be undone.
        for button in ("Delete", "Pause"):
            grace.go_to(first[1], "checkbox")
            keys.press("Space")
            grace.press(button)
            if button == "Delete":
                page.wait_for_selector("h1:has-text('Delete 1 trigger')")
                grace.press("Leave them")
        page.wait_for_selector("td .badge:has-text('Paused')")

        # What is folded opens, and a field that looks up names offers them.
        page.goto(here + "runs")
        grace.go_to("More")
        keys.press("Enter")
        assert page.locator("details[open]").count() == 1
        for key in ("Tab", "Shift+Tab"):
            keys.press(key)
        assert grace.focused()[1] == "More"
        keys.press("Space")
        assert page.locator("details[open]").count() == 0
        keys.press("/")
        keys.press("ArrowDown")
        grace.press("Apply")

        # A row that is added has the focus, and what follows it when it is removed.
        page.goto(here + "triggers/new")
        grace.press("Add an event", stays=True)
        page.wait_for_selector("[name='on.0.sourceId']:focus")
        keys.press("ArrowDown")
        assert page.input_value("[name='on.0.sourceId']") != ""
        grace.press("Remove event 1", stays=True)
        page.wait_for_selector("button[value=on]:focus")
        # Tab and Shift+Tab lead through the whole form, there and back.
        for name, key in (("Make the trigger", "Tab"), ("Skip to the content", "Shift+Tab")):
            grace.go_to(name, key=key)
