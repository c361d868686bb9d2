"""The service's page in a real browser: an image is dropped, classified and labelled, a class is learnt, all by itself.

Pictures of the page at both widths are left in the folder of the test (``page-1280.png`` and the like).
"""

from __future__ import annotations

import base64
import io
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.service.users import Role, Users

pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

SERVICE = ("configs/service.json",)
# few images, which show little
LENIENT = {"class_margin": 1.0, "mean_margin": 1.0, "class_floor": 0.0, "mean_floor": 0.0}
SECONDS = 60.0
WIDTHS = (1280, 800)
DROP = """
const transfer = new DataTransfer();
for (const [name, text] of arguments[0]) {
  transfer.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], name));
}
const over = new DragEvent("dragover", { bubbles: true, cancelable: true, dataTransfer: transfer });
document.getElementById("drop").dispatchEvent(over);
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
return over.defaultPrevented;
"""
UNNAMED = """
return [...document.querySelectorAll("input, select, button, img, progress, table")]
    .filter((element) => element.checkVisibility() && element.type !== "hidden")
    .filter((element) => !(element.labels?.length || element.textContent.trim() || element.alt || element.ariaLabel
        || element.getAttribute("aria-labelledby")))
    .map((element) => element.outerHTML);
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("no browser: install the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


class Page:
    """The page of a service, as who sits before it uses it."""

    def __init__(self, browser: Any, url: str, pictures: Path) -> None:
        self.browser, self.pictures = browser, pictures
        browser.get(url)
        self.wait(lambda: "Version" in self.text("served"))

    def one(self, id: str) -> Any:
        return self.browser.find_element(By.ID, id)

    def text(self, id: str) -> str:
        return str(self.one(id).text)

    def wait(self, happened: Callable[[], Any], seconds: float = SECONDS) -> Any:
        # an element that was found before the page was loaded anew is looked for again
        again = [StaleElementReferenceException]
        return WebDriverWait(self.browser, seconds, ignored_exceptions=again).until(lambda _: happened())

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Drop files, and wait for what is said of the first."""
        content = [(name, base64.b64encode(data).decode()) for name, data in files]
        assert self.browser.execute_script(DROP, content), "else the browser would open the file instead"
        self.wait(lambda: "%" in self.text("verdict") or self.text("problem"))

    def label(self, name: str, all: bool = False) -> None:
        """Label the image that is shown, or all that were dropped, and wait for it."""
        field = self.one("class")
        field.clear()
        field.send_keys(name)
        if all:
            self.one("label-all").click()
        else:
            field.send_keys(Keys.ENTER)
        self.wait(lambda: self.text("said-label").startswith("Labelled") or self.text("problem"))

    def bars(self) -> list[tuple[str, str]]:
        """Return class and probability as they stand there."""
        rows = self.one("bars").find_elements(By.TAG_NAME, "tr")
        return [
            (row.find_element(By.TAG_NAME, "th").text, row.find_element(By.CLASS_NAME, "number").text) for row in rows
        ]

    def counts(self) -> list[str]:
        """Return the rows of the table of labels."""
        return [row.text for row in self.browser.find_elements(By.CSS_SELECTOR, "#counts tr")]

    def look(self, name: str) -> None:
        """Take a picture of the whole page at both widths; nothing may stand beside it."""
        for width in WIDTHS:
            self.browser.set_window_size(width, 1000)
            height = self.browser.execute_script("return document.documentElement.scrollHeight")
            self.browser.set_window_size(width, max(height + 150, 1000))
            shown, whole = self.browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
            assert (shown, whole) == (width, width)
            self.browser.save_screenshot(str(self.pictures / f"{name}-{width}.png"))
        self.browser.set_window_size(1280, 1000)

    def complaints(self) -> list[str]:
        """Return what the browser complains of; that an answer is no good one is the page's business."""
        said = [entry["message"] for entry in self.browser.get_log("browser")]
        return [message for message in said if "the server responded with a status of" not in message]


def png(seed: int) -> bytes:
    """Draw a picture of its own: rings around a place, in a colour."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:160, :160]
    distance = np.hypot(rows - rng.integers(50, 110), columns - rng.integers(50, 110))
    shade = 0.5 + 0.5 * np.sin(distance / rng.uniform(4, 9))
    picture = shade[..., None] * rng.integers(120, 250, 3) + rng.normal(0, 8, (160, 160, 3))
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def running(start_run: Any, free_port: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Start services, each in a folder of its own, and return their addresses."""
    processes: list[Any] = []

    def start(**overrides: Any) -> str:
        port = free_port()
        folder = tmp_path_factory.mktemp("service")
        processes.append(start_run({"port": port, "device": "cpu", "service_dir": folder, **overrides}, SERVICE))
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            assert processes[-1].is_alive(), "what it printed is captured"
            try:
                requests.get(f"{url}/healthz")
                return url
            except requests.ConnectionError:
                time.sleep(0.05)
        pytest.fail("the service does not answer")

    yield start
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    assert all(process.exitcode in (0, -signal.SIGKILL) for process in processes)


@pytest.fixture(scope="module")
def url(running: Callable[..., str], trained_model: Path) -> str:
    return running(model=trained_model)


@pytest.fixture
def page(browser: Any, url: str, tmp_path: Path) -> Iterator[Page]:
    page = Page(browser, url, tmp_path)
    yield page
    assert page.complaints() == []


def test_an_image_that_is_dropped_is_classified_and_drawn(page: Page, trained_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    expected = load_image_classifier(trained_model).classify(str(tmp_path / "a.png"))
    page.drop(("a.png", png(1)))
    scores = page.bars()
    ranked = sorted(expected.probabilities.items(), key=lambda pair: -pair[1])
    assert [name for name, _ in scores] == [name for name, _ in ranked]
    assert [float(score.removesuffix(" %")) for _, score in scores] == pytest.approx(
        [100 * score for _, score in ranked], abs=0.06
    )
    assert expected.predicted_class in page.text("verdict")
    page.wait(lambda: page.browser.execute_script("return [...document.images].every((each) => each.naturalWidth > 0)"))
    page.look("page")


def test_dicom_is_shown_like_any_image_and_what_is_refused_is_said(page: Page, scans: Any, tmp_path: Path) -> None:
    grey = (np.add.outer(np.arange(60), np.arange(80)) * 20).astype(np.uint16)
    page.one("file").send_keys(scans.dicom(tmp_path / "image", grey, PatientName="Secretname^Jane"))
    page.wait(lambda: "%" in page.text("verdict"))
    shown = page.browser.execute_script("const image = document.querySelector('#plain img'); return image.naturalWidth")
    assert shown == 80
    assert "Secretname" not in page.browser.page_source
    page.drop(("a.png", b"no picture"))
    assert "unsupported_kind: it is of a kind that is not read" in page.text("problem")
    assert not page.one("answer").is_displayed()
    page.drop(("b.png", png(2)))
    assert page.text("problem") == ""


def test_labels_with_a_new_class_are_ready_to_be_learnt(page: Page) -> None:
    assert not page.one("learn").is_enabled()
    page.drop(("a.png", png(3)))
    page.label("<b>new</b>")
    assert "a class is called by" in page.text("problem") and page.text("said-label") == ""
    page.label("ring (new)")
    assert page.text("said-label") == "Labelled ring (new), a new class."
    page.wait(lambda: page.counts() == ["ring (new) 1 new"])
    assert not page.one("learn").is_enabled()
    page.wait(lambda: "two images or more" in page.text("needs"))
    page.drop(("b.png", png(4)), ("c.png", png(5)))
    page.label("ring (new)", all=True)
    page.wait(lambda: page.counts() == ["ring (new) 3 new"])
    assert page.one("learn").is_enabled() and page.text("learn") == "Learn ring (new)"
    page.one("learn").click()
    page.wait(lambda: "nothing to go on from" in page.text("problem"))  # this model is of no version
    page.look("labels")


def test_an_image_that_is_kept_is_asked_for_and_labelled_later(page: Page) -> None:
    page.drop(("a.png", png(8)))
    page.one("keep").click()
    page.wait(lambda: page.one("next").is_enabled())
    page.browser.refresh()
    page.wait(lambda: page.one("next").is_enabled())
    page.one("next").click()
    page.wait(lambda: "%" in page.text("verdict"))
    page.label("benign")
    page.wait(lambda: "benign 1 known" in page.counts())
    assert not page.one("next").is_enabled()


def test_the_page_can_be_used_by_keyboard_and_read_aloud(page: Page) -> None:
    page.drop(("a.png", png(6)), ("b.png", png(7)))
    assert page.browser.execute_script(UNNAMED) == []
    page.browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(14):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.append(page.browser.switch_to.active_element.get_attribute("id"))
    wanted = ["file", "class", "group", "label-all", "strategy", "epochs"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted
    second = page.browser.find_elements(By.CSS_SELECTOR, "#strip button")[1]
    second.send_keys(Keys.ENTER)
    page.wait(lambda: "%" in page.text("verdict"))
    strip = page.browser.find_elements(By.CSS_SELECTOR, "#strip button")
    assert [button.get_attribute("aria-current") for button in strip] == ["false", "true"]


def test_a_user_signs_in(browser: Any, running: Callable[..., str], trained_model: Path, tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json")
    users.add("Zoe", Role.READER, "correct horse battery")
    url = running(model=trained_model, users=users.path)
    browser.get(url)
    form = WebDriverWait(browser, SECONDS).until(lambda _: browser.find_element(By.ID, "password"))
    WebDriverWait(browser, SECONDS).until(lambda _: form.is_displayed())
    browser.find_element(By.ID, "name").send_keys("Zoe")
    form.send_keys("wrong", Keys.ENTER)
    WebDriverWait(browser, SECONDS).until(lambda _: "no user" in browser.find_element(By.ID, "problem").text)
    form.send_keys("correct horse battery", Keys.ENTER)
    WebDriverWait(browser, SECONDS).until(lambda _: "Version" in browser.find_element(By.ID, "served").text)
    assert not form.is_displayed()
    browser.execute_script("sessionStorage.clear()")


def test_the_page_asks_nobody_else(url: str) -> None:
    answer = requests.get(url)
    assert "https://" not in answer.text and "http://" not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


@pytest.mark.slow
def test_a_whole_journey(browser: Any, running: Callable[..., str], uninterrupted: Any, tmp_path: Path) -> None:
    """Drop, predict, label, add a class, learn it, and see the matrix grow and what was forgotten."""
    settings = {"device": "cpu"}
    page = Page(browser, running(run_dir=uninterrupted.output, **LENIENT, training_settings=settings), tmp_path)
    tasks = len(list(uninterrupted.output.glob("task_*")))
    rows = "#matrix tbody tr"
    page.wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, rows)) == tasks)
    page.drop(*((f"{number}.png", png(10 + number)) for number in range(6)))
    page.look("journey-1-predicted")
    page.label("rings, new", all=True)
    page.wait(lambda: page.one("learn").is_enabled())
    page.one("epochs").send_keys("3")
    page.one("learn").click()
    page.wait(lambda: "epoch" in page.text("stage"), 3 * SECONDS)
    assert page.one("stop").is_displayed() and not page.one("learn").is_enabled()
    page.look("journey-2-learning")
    page.wait(lambda: "is served now" in page.text("stage"), 5 * SECONDS)
    page.wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, rows)) == tasks + 1)
    assert f"After {tasks + 1} tasks it has forgotten" in page.text("summary")
    lost = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#matrix tfoot td")]
    assert len(lost) == tasks + 1 and lost[-1] == "–" and all(float(cell) is not None for cell in lost[:-1])
    assert page.counts() == ["rings, new 6 known"]
    page.drop(("again.png", png(10)))
    assert "rings, new" in [name for name, _ in page.bars()]
    page.look("journey-3-learnt")
    assert page.complaints() == []
