"""The screens to which the links of mails lead, in a real browser: their script takes the token out of the URL.

Screenshots go to the directory that PIPEDAI_SCREENSHOTS names. Without it there are none.
"""

import pytest

from notices.models import RefusedAddress
from testing.processes.browser import chromium, screenshot, sideways_overflow
from testing.world.channels import asked_token
from testing.world.mails import invite_for_test, issue_token
from testing.world.users import PASSWORD, UserFactory

pytestmark = pytest.mark.long

WIDTHS = (1280, 390)
# What each page shows once its script has run; the others show a form.
SHOWN = {"invitation": "dl"}
PAGES = {"verify": "verify", "reset": "reset", "register": "registration"}


def test_the_script_takes_the_token_and_the_forms_work(committed_cast, server):
    ada = UserFactory.create(email="ada@example.com")
    tokens = {page: issue_token(of, ada.email, ada) for page, of in PAGES.items()}
    environment, owner = committed_cast.environment, committed_cast.owner
    tokens["notices"] = asked_token(committed_cast, "grace@example.com")
    tokens["invitation"] = invite_for_test(environment, owner, "grace@example.com", "operator")
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(60_000)  # A busy machine draws slowly.
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}"))
        for name, token in tokens.items():
            page.goto("about:blank")
            page.goto(f"{server.url}/account/{name}#token={token}")
            if name == "verify":
                # The fragment stays through the redirect to sign in, a wrong password, and the way back.
                for password in ("not the password", PASSWORD):
                    page.fill("#field-email", ada.email)
                    page.fill("#field-password", password)
                    with page.expect_navigation():
                        page.click("form button")
            # The invitation's page sends the token at once, and shows what it is about.
            page.wait_for_selector(SHOWN.get(name, "form button"))
            assert "token" not in page.url
            assert not page.locator("input[name$=oken]:visible").count()
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 800})
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    assert sideways_overflow(page) == []
                    screenshot(page, f"account-{name}-{width}-{scheme}")
        assert "production" in page.inner_text("dl")

        for answer in ("confirm", "refuse"):
            page.goto("about:blank")
            page.goto(f"{server.url}/account/notices#token={tokens['notices']}")
            page.click(f"button[value={answer}]")
            page.wait_for_selector(".done")
            screenshot(page, f"account-notices-{answer}")
        page.goto("about:blank")
        page.goto(f"{server.url}/account/notices#token=x")
        page.click("button[value=confirm]")
        page.wait_for_selector(".error")
        screenshot(page, "account-notices-error")

        page.goto("about:blank")
        page.goto(f"{server.url}/account/reset#token={tokens['reset']}")
        page.fill("#field-newPassword", "a fresh horse battery")
        page.click("form button")
        page.wait_for_selector(".done")
        screenshot(page, "account-done")
        page.goto("about:blank")
        page.goto(f"{server.url}/account/reset#token={tokens['reset']}")
        page.fill("#field-newPassword", "another fresh horse")
        page.click("form button")
        page.wait_for_selector(".error")
        screenshot(page, "account-error")
        for path in ("", "pair"):
            page.goto(f"{server.url}/{path}", wait_until="load")
            screenshot(page, f"small-{path or 'start'}")
    assert RefusedAddress.objects.filter(address="grace@example.com").exists()
    ada.refresh_from_db()
    assert ada.check_password("a fresh horse battery")
    unexpected = [
        said
        for said in complaints
        if "409" not in said and "401" not in said and "[DOM]" not in said
    ]
    assert unexpected == [], "\n".join(unexpected)
