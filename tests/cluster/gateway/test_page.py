"""The page, in a real browser: what it shows, what can be done from it, by keys too, and strangers' text is text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.support.wait import WebDriverWait

from cluster.testing import Nodes, wait_for
from tests.cluster.gateway.conftest import Gateway, Shared, start_gateway
from tests.examples.atm.browser import open_browser

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("shared", ["sqlite"], indirect=True),
]
OPS = "tests.cluster.ops:"
STRANGE = "<img src=x onerror=document.title='hacked'><b>é|\U0001f4b0</b>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def until(browser: Chrome, condition: Callable[[], Any], what: str = "") -> Any:
    waiting = WebDriverWait(browser, 30, 0.05, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: condition(), what)


def all_of(browser: Chrome, css: str) -> list[Any]:
    return browser.find_elements("css selector", css)


def text(browser: Chrome, css: str) -> str:
    found = all_of(browser, css)
    return found[0].text if found else ""


def row_of(browser: Chrome, job_id: str) -> Any:
    return until(browser, lambda: next(iter(all_of(browser, f"#jobs tr[data-key='{job_id}']")), None), job_id)


def press(browser: Chrome, *keys: str) -> None:
    for key in keys:
        # To whatever has the focus, as from a keyboard: a button that was just disabled takes no keys of its own.
        ActionChains(browser).send_keys(key).perform()


@pytest.fixture
def page(shared: Shared, browser: Chrome) -> Iterator[Gateway]:
    browser.get(shared.gateway.url)
    until(browser, lambda: text(browser, "#state") == "live", "live")
    yield shared.gateway
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_jobs_members_queues_and_events_are_live(page: Gateway, browser: Chrome, tmp_path: Path) -> None:
    go = tmp_path / "go"
    until(browser, lambda: "slots 2" in text(browser, "#totals").replace("\n", " "), "the totals")
    job_id = page.submit(
        operation=OPS + "until", inputs=[str(go)] * 4, name="Watched", description="four of them"
    )
    row = row_of(browser, job_id)
    until(browser, lambda: "running" in row.text)
    assert "Watched" in row.text
    assert "four of them" in row.text
    assert "0 / 4" in row.text
    go.touch()
    until(browser, lambda: "finished" in row.text and "4 / 4" in row.text, "its end")

    browser.find_element("id", "tab-members").click()
    until(browser, lambda: len(all_of(browser, "#members tbody tr")) == 2)
    assert "coordinator, leads" in text(browser, "#members tbody")
    browser.find_element("id", "tab-queues").click()
    until(browser, lambda: "done" in text(browser, "#queues tbody"))
    browser.find_element("id", "tab-events").click()
    browser.find_element("id", "kinds").send_keys(job_id)
    until(browser, lambda: "job-state" in text(browser, "#events ol"))
    assert all(job_id in line.text for line in all_of(browser, "#events li"))


def test_a_jobs_results_and_timeline_are_shown(page: Gateway, browser: Chrome) -> None:
    job_id = page.submit(template='echo "line $1"; exit $1', inputs=[0, 3], shards=2)
    page.ended(job_id)
    row_of(browser, job_id).click()
    until(browser, lambda: "ExitCode: exit code 3" in text(browser, "#results"))

    assert "line 0" in text(browser, "#results")
    assert "line 3" in text(browser, "#results")
    assert len(all_of(browser, "#timeline rect.done")) == 2
    assert "worker" in text(browser, "#timeline svg text")
    assert "1 + 1 failed / 2" in text(browser, "#facts")
    browser.find_element("id", "again").click()
    until(browser, lambda: f"what failed of {job_id}" in text(browser, "#facts"), "the new job")
    until(browser, lambda: "0 + 1 failed / 1" in text(browser, "#facts"))
    other = page.submit(operation=OPS + "add", args=[20, 3])
    page.ended(other)
    row_of(browser, other).click()
    until(
        browser,
        lambda: text(browser, "#results") == "0\n23" or text(browser, "#results").split() == ["0", "23"],
    )


def test_a_job_is_paused_resumed_and_cancelled(page: Gateway, browser: Chrome, tmp_path: Path) -> None:
    job_id = page.submit(operation=OPS + "until", inputs=[str(tmp_path / "never")] * 8)
    row_of(browser, job_id).click()

    def button(name: str) -> Any:
        return browser.find_element("css selector", f"#acts [data-signal='{name}']")

    until(browser, lambda: button("pause").is_enabled())
    assert not button("resume").is_enabled()
    button("pause").click()
    until(browser, lambda: button("resume").is_enabled())
    assert page.job(job_id)["state"] == "paused"
    button("resume").click()
    until(browser, lambda: page.job(job_id)["state"] == "running" and button("cancel").is_enabled())
    button("cancel").click()
    until(browser, lambda: page.job(job_id)["state"] == "cancelled")
    until(browser, lambda: not button("cancel").is_enabled())
    until(browser, lambda: "cancelled" in row_of(browser, job_id).text)

    forget = browser.find_element("id", "forget")
    forget.click()
    assert forget.text == "Forget: sure?"
    assert page.get(f"/jobs/{job_id}").status == 200
    forget.click()
    until(browser, lambda: page.get(f"/jobs/{job_id}").status == 404)
    until(browser, lambda: not all_of(browser, f"#jobs tr[data-key='{job_id}']"))


def test_dead_letters_are_replayed(page: Gateway, browser: Chrome) -> None:
    task = page.post("/tasks", {"operation": OPS + "fail", "args": ["fatal", STRANGE]}).json()["id"]
    until(browser, lambda: text(browser, "#tab-tasks b") == "1")
    browser.find_element("id", "tab-tasks").click()
    until(browser, lambda: "it cannot be" in text(browser, "#tasks tbody"))
    before = page.get(f"/tasks/{task}").json()["ended"]
    browser.find_element("css selector", f"#tasks tr[data-key='{task}'] button").click()
    wait_for(lambda: page.get(f"/tasks/{task}").json()["ended"] not in (before, None), 20)
    until(browser, lambda: f"task {task} is ready again" in text(browser, "#said"))


def test_it_can_be_used_by_keys_alone(page: Gateway, browser: Chrome, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    first = page.submit(operation=OPS + "until", inputs=[never], name="first of the keys")
    row_of(browser, first)
    second = page.submit(operation=OPS + "until", inputs=[never], name="second of the keys")
    row_of(browser, second)
    press(browser, Keys.TAB, Keys.ENTER)  # the link past everything
    press(browser, Keys.TAB, "of the keys", Keys.TAB, Keys.TAB)

    def focused() -> str:
        return str(browser.switch_to.active_element.get_attribute("data-key"))

    until(browser, lambda: len(all_of(browser, "#jobs tbody tr")) == 2, "what was looked for")
    assert focused() == second  # the newest first
    press(browser, Keys.ARROW_DOWN)
    assert focused() == first
    press(browser, Keys.ENTER)
    until(browser, lambda: text(browser, "#job-title") == "first of the keys")
    cancel = browser.find_element("css selector", "#acts [data-signal='cancel']")
    for _ in range(5):
        if browser.switch_to.active_element == cancel:
            break
        press(browser, Keys.TAB)
    press(browser, Keys.ENTER)
    until(browser, lambda: page.job(first)["state"] == "cancelled")
    press(browser, Keys.ESCAPE)
    assert not browser.find_element("id", "job").is_displayed()
    assert focused() == first
    tab = browser.find_element("id", "tab-jobs")
    tab.click()
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("id") == "tab-members"
    assert browser.find_element("id", "members").is_displayed()
    page.post(f"/jobs/{second}/signal", {"type": "terminate"})


def test_a_job_that_was_closed_before_its_signal_was_answered_stays_closed(
    page: Gateway, browser: Chrome, tmp_path: Path
) -> None:
    job_id = page.submit(operation=OPS + "until", inputs=[str(tmp_path / "never")])
    row_of(browser, job_id).click()
    cancel = browser.find_element("css selector", "#acts [data-signal='cancel']")
    until(browser, cancel.is_enabled)
    browser.execute_script(
        """
        const real = window.fetch;
        window.fetch = async (path, ...rest) => {
          if (path.endsWith("/signal")) await new Promise((resolve) => (window.answer = resolve));
          (window.asked ||= []).push(path);
          return real(path, ...rest);
        };
        """
    )
    cancel.click()
    press(browser, Keys.ESCAPE)
    browser.execute_script("window.answer()")
    until(browser, lambda: text(browser, "#said") == f"job {job_id}: cancel")
    assert not browser.find_element("id", "job").is_displayed()
    assert "/jobs/null" not in browser.execute_script("return window.asked")


def test_strangers_text_is_text(page: Gateway, browser: Chrome) -> None:
    job_id = page.submit(
        template='echo "$1"; echo "$1" >&2; exit 1', inputs=[STRANGE], name=STRANGE, description=STRANGE
    )
    page.post("/tasks", {"operation": STRANGE, "queue": STRANGE})
    page.ended(job_id)
    row_of(browser, job_id).click()
    until(browser, lambda: STRANGE in text(browser, "#results"))
    assert text(browser, "#job-title") == STRANGE
    browser.find_element("id", "close").click()
    for tab in ("queues", "events"):
        browser.find_element("id", f"tab-{tab}").click()
    until(browser, lambda: all_of(browser, "#queues tr"))

    assert all_of(browser, "main img, aside img, main b b, aside b, #queues b") == []
    assert "hacked" not in browser.title


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_and_can_be_read(
    page: Gateway, browser: Chrome, scheme: str, tmp_path: Path
) -> None:
    """The contrast of each text with what is behind it is that of WCAG's AA, at least 4.5."""
    failed = page.submit(template="exit 1", inputs=[1, 2, 3], shards=3)
    page.ended(failed)
    waiting = page.submit(operation="nobody:knows", inputs=[1])
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    row_of(browser, waiting)
    row_of(browser, failed).click()
    until(browser, lambda: "ExitCode" in text(browser, "#results"))
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    assert browser.save_screenshot(str(folder / f"page-{scheme}.png"))
    worst = browser.execute_script(CONTRAST)
    page.delete(f"/jobs/{waiting}")

    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(","))
    assert (brightness > 380) == (scheme == "light")
    assert worst["ratio"] >= 4.5, worst


CONTRAST = """
const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (color) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const found = rgb(getComputedStyle(node).backgroundColor);
    if (found[3] === 255) return found;
  }
  return [255, 255, 255, 255];
};
let worst = { ratio: 99 };
for (const node of document.querySelectorAll("header *, nav *, main *, aside *")) {
  const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
  if (!own || !node.checkVisibility() || node.disabled) continue;
  const style = getComputedStyle(node);
  const [a, b] = [light(rgb(node.namespaceURI.includes("svg") ? style.fill : style.color)), light(behind(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst.ratio) worst = { ratio, text: node.textContent, css: node.className };
}
return worst;
"""


def test_a_gateway_with_a_token_asks_for_it(shared: Shared, browser: Chrome, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    with Nodes(shared.url, shared.group) as nodes:
        gateway = start_gateway(nodes, "--token-file", str(token))
        assert gateway.get("/jobs").status == 401
        browser.get(gateway.url)
        until(browser, lambda: browser.switch_to.active_element.get_attribute("id") == "secret")
        press(browser, "wrong-wrong-wrong", Keys.ENTER)
        until(browser, lambda: "a token is needed" in text(browser, "#state"))
        until(browser, lambda: browser.switch_to.active_element.get_attribute("id") == "secret")
        press(browser, "0123456789abcdef", Keys.ENTER)
        until(browser, lambda: text(browser, "#state") == "live")
        until(browser, lambda: all_of(browser, "#jobs tbody tr"))
        assert "0123456789abcdef" not in browser.page_source
        browser.get("about:blank")
        browser.get_log("browser")  # 401 is an error there; that is what was to be


def test_it_says_when_the_gateway_is_away_and_goes_on_after(shared: Shared, browser: Chrome) -> None:
    with Nodes(shared.url, shared.group) as nodes:
        gateway = start_gateway(nodes)
        port = gateway.url.rpartition(":")[2]
        browser.get(gateway.url)
        until(browser, lambda: text(browser, "#state") == "live")
        gateway.node.kill()
        until(browser, lambda: "away" in text(browser, "#state"))
        job_id = shared.gateway.submit(operation=OPS + "nap", inputs=[0])
        nodes.start("gateway", "--port", port)
        until(browser, lambda: text(browser, "#state") == "live")
        row_of(browser, job_id)
        browser.find_element("id", "tab-events").click()
        browser.find_element("id", "kinds").send_keys(job_id)
        until(browser, lambda: "job-state" in text(browser, "#events ol"), "what happened meanwhile")
        seen = [row.get_attribute("data-key") for row in all_of(browser, "#events li")]
        assert len(seen) == len(set(seen))
        browser.get("about:blank")
        browser.get_log("browser")
