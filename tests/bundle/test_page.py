"""The service's page in a real browser: images are read, labelled and learnt, all by itself.

Pictures of the page at three widths, light and dark, are left in the folder of the test (``images-1280-dark.png`` and
the like).
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
from scripts.model.networks import Convolutions

pytest.importorskip("selenium")
pytest.importorskip("selenium_axe_python")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from selenium_axe_python import Axe  # noqa: E402

SERVICE = ("configs/service.json",)
# few images, which show little
LENIENT = {"class_margin": 1.0, "mean_margin": 1.0, "class_floor": 0.0, "mean_floor": 0.0}
SECONDS = 60.0
WIDTHS = (800, 1280, 2560)
THEMES = ("light", "dark")
VIEWS = ("images", "classes", "learning", "versions", "help")
DROP = """
const transfer = new DataTransfer();
for (const [name, text] of arguments[0]) {
  const type = name.endsWith(".png") ? "image/png" : "";
  transfer.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], name, { type }));
}
const over = new DragEvent("dragover", { bubbles: true, cancelable: true, dataTransfer: transfer });
document.getElementById("drop").dispatchEvent(over);
document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer: transfer }));
return over.defaultPrevented;
"""
MIDDLE = """
const canvas = document.getElementById("canvas");
const spot = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
spot.drawImage(canvas, canvas.width / 2, canvas.height / 2, 1, 1, 0, 0, 1, 1);
return [...spot.getImageData(0, 0, 1, 1).data];
"""


# of a picture that is black on its left half and white on its right: height over width of what is drawn
DRAWN_SIDES = """
const canvas = document.getElementById("canvas"), { width, height } = canvas;
const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
copy.drawImage(canvas, 0, 0);
const { data } = copy.getImageData(0, 0, width, height);
const lit = (row, column) => data[4 * (row * width + column)] > 128;
let columns = 0, rows = 0;
for (let column = 0; column < width; column++) columns += lit(height >> 1, column);
const middle = (width >> 1) + (columns >> 1);
for (let row = 0; row < height; row++) rows += lit(row, middle);
return columns ? rows / (2 * columns) : null;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("no browser: install the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    words = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")
    for word in (*words, "--lang=en"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    driver.set_window_size(1280, 1000)
    yield driver
    driver.quit()


class Page:
    """The page of a service, as who sits before it uses it."""

    def __init__(self, browser: Any, url: str, pictures: Path) -> None:
        self.browser, self.url, self.pictures = browser, url, pictures
        browser.get(url)
        self.wait(lambda: "Version" in self.text("served"))

    def one(self, id: str) -> Any:
        return self.browser.find_element(By.ID, id)

    def text(self, id: str) -> str:
        return str(self.one(id).text)

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def rows(self, id: str) -> list[str]:
        """Return what the rows of a table say, all at one time."""
        rows = f"return [...document.querySelectorAll('#{id} tr')].map((row) => row.innerText)"
        return list(self.browser.execute_script(rows))

    def wait(self, happened: Callable[[], Any], seconds: float = SECONDS) -> Any:
        # an element that was found before the page was loaded anew is looked for again
        again = [StaleElementReferenceException]
        return WebDriverWait(self.browser, seconds, ignored_exceptions=again).until(lambda _: happened())

    def go(self, view: str) -> None:
        """Go to a part of the page."""
        self.browser.find_element(By.CSS_SELECTOR, f"nav a[href='#{view}']").click()
        self.wait(lambda: self.one(view).is_displayed())

    def judged(self) -> None:
        """Wait for what is said of the image that is open."""
        self.wait(lambda: self.text("verdict") not in ("", "Looking …") or self.text("problem"))

    def drop(self, *files: tuple[str, bytes]) -> None:
        """Drop files, and wait for what is said of the first."""
        content = [(name, base64.b64encode(data).decode()) for name, data in files]
        assert self.browser.execute_script(DROP, content), "else the browser would open the file instead"
        self.wait(lambda: [row.text.splitlines()[0] for row in self.all("#opened li")] == [name for name, _ in files])
        self.judged()

    def keep(self, *contents: bytes) -> None:
        """Keep images for later."""
        for content in contents:
            requests.put(f"{self.url}/datastore/image", files={"file": ("a.png", content)}).raise_for_status()

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def name(self, name: str) -> None:
        """Type a class for the image that is open."""
        field = self.one("class")
        field.clear()
        field.send_keys(name, Keys.ENTER)

    def answer(self, button: str) -> str:
        """Answer the question that is asked, and return it."""
        self.wait(lambda: self.one("dialog").is_displayed())
        question = self.text("dialog-text")
        next(one for one in self.all("#dialog-form button") if one.text == button).click()
        return question

    def counted(self) -> tuple[int, int]:
        """Return how many images are labelled, of how many."""
        labelled, _, total = self.text("progress-text").split()[:3]
        return int(labelled), int(total)

    def theme(self, theme: str) -> None:
        """Choose light or dark."""
        option = self.browser.find_element(By.CSS_SELECTOR, f"#theme option[value='{theme}']")
        option.click()

    def speak(self, language: str, title: str) -> None:
        """Choose a language, by the title that the worklist has there."""
        self.browser.find_element(By.CSS_SELECTOR, f"#language option[value={language}]").click()
        self.wait(lambda: self.text("list-title") == title)

    def faults(self) -> list[str]:
        """Return what axe-core finds wrong with what is shown."""
        axe = Axe(self.browser)
        axe.inject()
        return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in axe.run()["violations"]]

    def look(self, name: str, *themes: str) -> None:
        """Take a picture of the page at all widths; nothing may stand beside it."""
        for theme in themes or ("light",):
            self.theme(theme)
            for width in WIDTHS:
                self.browser.set_window_size(width, 1440 if width > 2000 else 1000)
                shown, whole = self.browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
                assert (shown, whole) == (width, width)
                self.browser.save_screenshot(str(self.pictures / f"{name}-{width}-{theme}.png"))
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
    page = Page(browser, f"{url}/?#images", tmp_path)
    page.url = url
    yield page
    assert page.complaints() == []


def test_an_image_that_is_dropped_is_drawn_and_judged(page: Page, trained_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    expected = load_image_classifier(trained_model).classify(str(tmp_path / "a.png"))
    page.drop(("a.png", png(1)))
    rows = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, .number")] for row in page.all("#bars tr")]
    ranked = sorted(expected.probabilities.items(), key=lambda pair: -pair[1])
    assert [name for name, _ in rows] == [name for name, _ in ranked]
    shares = [float(share.removesuffix(" %")) for _, share in rows]
    assert shares == pytest.approx([100 * share for _, share in ranked], abs=0.51)
    assert page.text("verdict") == f"{expected.predicted_class}, {shares[0]:.0f} % likely"
    with Image.open(io.BytesIO(png(1))) as picture:
        wanted = np.asarray(picture)[79:82, 79:82].reshape(-1, 3)
    shown = page.wait(lambda: page.browser.execute_script(MIDDLE))
    assert (wanted.min(0) - 3 <= shown[:3]).all() and (shown[:3] <= wanted.max(0) + 3).all()


def test_values_of_a_scan_are_windowed_inverted_and_scrolled(page: Page, scans: Any, tmp_path: Path) -> None:
    frames = np.stack([np.full((60, 80), value) for value in (100, 1000, 3000)]).astype(np.uint16)
    about = {"NumberOfFrames": 3, "WindowCenter": 2000, "WindowWidth": 4000, "PatientName": "Secretname^Jane"}
    page.one("file").send_keys(scans.dicom(tmp_path / "image", frames, **about))
    page.wait(lambda: page.text("slice-text") == "Slice 2 of 3")
    grey = lambda: page.browser.execute_script(MIDDLE)[0]  # noqa: E731
    page.wait(lambda: grey() == 64)  # 1000 in the window 0 to 4000
    page.judged()
    page.press("]")
    page.wait(lambda: grey() == 191)
    page.press("[", "[")
    page.wait(lambda: grey() == 6)
    page.press("i")
    page.wait(lambda: grey() == 249)
    page.press("r")
    page.browser.find_element(By.CSS_SELECTOR, "#preset option[value=all]").click()
    page.wait(lambda: grey() == 0 and page.text("reading").startswith("L 1550 W 2900"))
    stage = page.one("stage")
    ActionChains(page.browser).drag_and_drop_by_offset(stage, 40, 40).perform()
    page.wait(lambda: not page.text("reading").startswith("L 1550 W 2900"))
    page.press("+")
    page.wait(lambda: "×1.3" in page.text("reading"))
    assert "Secretname" not in page.browser.page_source


def test_of_a_file_that_is_refused_no_earlier_image_is_shown(page: Page) -> None:
    page.drop(("a.png", png(2)))
    page.drop(("b.png", b"no picture"))
    assert page.text("verdict").splitlines() == [
        "It cannot be judged",
        "Files of this kind are not read: save it as PNG, JPEG, DICOM or NIfTI.",
    ]
    assert page.one("empty").is_displayed() and page.text("reading") == ""
    page.press("1")
    assert page.counted()[0] == 0, "what is not seen is not labelled"


def test_what_spoke_for_the_suggestion_is_a_switch(page: Page) -> None:
    page.drop(("a.png", png(1)))
    before = page.browser.execute_script("return document.getElementById('canvas').toDataURL()")
    page.press("h")
    page.wait(lambda: page.one("legend").is_displayed())
    assert page.one("heat").get_attribute("aria-checked") == "true"
    page.wait(lambda: page.browser.execute_script("return document.getElementById('canvas').toDataURL()") != before)
    label = page.text("verdict").rpartition(",")[0]
    assert f"most for ‘{label}’" in page.text("legend")
    assert page.faults() == []
    page.press("h")
    page.wait(lambda: not page.one("legend").is_displayed())


def test_the_worklist_leads_from_one_image_to_the_next(page: Page) -> None:
    page.keep(*(png(number) for number in range(30, 44)))
    page.browser.refresh()
    page.wait(lambda: "not looked at" not in page.text("progress-text") and "of 14" in page.text("progress-text"))
    doubts = requests.get(f"{page.url}/datastore/worklist").json()["items"]
    assert [item["doubt"] for item in doubts] == sorted((item["doubt"] for item in doubts), reverse=True)
    assert 3 < len(page.all("#rows .item")) < 14, "only the rows in sight are in the page"
    page.wait(lambda: page.all("#rows .item")[0].get_attribute("data-image") == doubts[0]["image"])
    page.all("#rows .item")[0].click()

    def current() -> str:
        return str(page.browser.find_element(By.CSS_SELECTOR, "#rows [aria-selected=true]").get_attribute("data-image"))

    page.wait(lambda: current() == doubts[0]["image"])
    page.judged()
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: current() == doubts[1]["image"])
    page.judged()
    page.press("1")
    page.wait(lambda: page.counted() == (1, 14))
    page.wait(lambda: current() == doubts[2]["image"])
    page.judged()
    page.press("2")
    page.wait(lambda: page.counted() == (2, 14))
    page.press("u")
    page.wait(lambda: page.text("said") == "1 label is as it was before." and page.counted() == (1, 14))
    page.wait(lambda: current() == doubts[2]["image"])
    page.wait(lambda: "taken back to no label: anybody on this machine" in page.text("history"))
    search = page.one("search")
    search.send_keys(doubts[5]["image"][:8])
    page.wait(lambda: len(page.all("#rows .item")) == 1)
    search.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    page.wait(lambda: len(page.all("#rows .item")) > 1)


def test_new_names_are_asked_about_and_labels_renamed_moved_and_removed(page: Page) -> None:
    page.drop(("a.png", png(3)))
    page.name("<b>new</b>")
    page.answer("New class ‘<b>new</b>’")
    page.wait(lambda: "A class is called by up to 64 letters" in page.text("problem"))
    page.name("ring")
    assert page.answer("New class ‘ring’") == "‘ring’ is a new class. Is that meant?"
    page.wait(lambda: page.text("said") == "Labelled ‘ring’.")
    page.drop(("b.png", png(4)), ("c.png", png(5)))
    page.one("class").send_keys("Rings")
    page.one("label-all").click()
    assert page.answer("Label all 2") == "Label all 2 opened images ‘Rings’?"
    assert "nearly the same as a name there is" in page.answer("New class ‘Rings’")
    page.wait(lambda: page.text("said") == "Labelled 2 images ‘Rings’.")
    page.go("classes")

    def states() -> dict[str, str]:
        found = [row.find_elements(By.CSS_SELECTOR, "th, td") for row in page.all("#class-rows tr")]
        return {cells[0].text: f"{cells[1].text} {cells[5].text}" for cells in found if len(cells) > 5}

    def act(label: str, word: str) -> None:
        page.browser.find_element(By.CSS_SELECTOR, f"button[aria-label='{word}: {label}']").click()

    page.wait(lambda: states().get("Rings") == "2 new, ready to be learnt")
    assert states()["ring"] == "1 new, waits for 1 more patient"
    act("Rings", "Rename")
    page.wait(lambda: page.one("dialog").is_displayed())
    page.browser.find_element(By.ID, "dialog-field").clear()
    page.browser.find_element(By.ID, "dialog-field").send_keys("ring", Keys.ENTER)
    page.wait(lambda: "There is a class ‘ring’ already" in page.text("dialog-text"))
    page.answer("Move them")
    page.wait(lambda: states().get("ring") == "3 new, ready to be learnt" and "Rings" not in states())
    act("ring", "Remove")
    assert "Remove the label ‘ring’ of 3 images?" in page.answer("Remove 3 labels")
    page.wait(lambda: "ring" not in states())
    page.go("images")
    page.press("u")
    page.wait(lambda: page.text("said") == "3 labels are as they were before.")
    page.go("learning")
    page.wait(lambda: page.text("learn") == "Learn ‘ring’")
    page.one("learn").click()
    page.answer("Learn")
    page.wait(lambda: "nothing to go on from" in page.text("problem"))  # this model is of no version


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_wrong_and_no_width_scrolls_sideways(page: Page, theme: str) -> None:
    page.drop(("a.png", png(6)), ("b.png", png(7)))
    for view in VIEWS:
        page.go(view)
        page.look(view, theme)
        assert page.faults() == [], view
    page.go("images")
    page.name("another one")
    page.wait(lambda: page.one("dialog").is_displayed())
    assert page.faults() == [], "a question"
    page.answer("Cancel")
    page.theme("light dark")


def test_it_speaks_german_where_it_refuses_too(page: Page) -> None:
    page.drop(("a.png", png(2)), ("b.png", b"no picture"))
    page.speak("de", "Arbeitsliste")
    assert page.browser.execute_script("return document.documentElement.lang") == "de"
    assert page.text("verdict").endswith(" % wahrscheinlich")
    for view in VIEWS:
        page.go(view)
        page.look(f"german-{view}")
        assert page.faults() == [], view
    page.go("images")
    page.press(Keys.ARROW_DOWN)
    page.wait(lambda: "Dateien dieser Art werden nicht gelesen" in page.text("verdict"))
    page.press(Keys.ARROW_UP)
    page.wait(lambda: page.text("verdict").endswith(" % wahrscheinlich"))
    page.name("4 rings")
    page.answer("Neue Klasse ‚4 rings‘")
    page.wait(lambda: page.text("problem").startswith("Eine Klasse heißt mit bis zu 64 Buchstaben"))
    page.browser.refresh()
    page.wait(lambda: page.text("list-title") == "Arbeitsliste")
    page.speak("en", "Worklist")


def test_pixels_are_as_high_as_the_file_says(page: Page, scans: Any, tmp_path: Path) -> None:
    stored = np.zeros((40, 40), np.uint16)
    stored[:, 20:] = 1000
    for spacing, sides in (([1, 1], 1.0), ([3, 1], 3.0)):
        path = scans.dicom(tmp_path / str(sides), stored, WindowCenter=0, WindowWidth=1, PixelSpacing=spacing)
        page.one("file").send_keys(path)
        page.wait(lambda sides=sides: page.browser.execute_script(DRAWN_SIDES) == pytest.approx(sides, rel=0.02))
        page.judged()


def test_of_a_volume_each_slice_has_its_heat(
    browser: Any, running: Callable[..., str], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    image = {"size": 16, "mean": [0.5], "std": [0.2], "dimensions": 3}
    described = {"backbone": "resnet10_3d", "sites": ["layer2"], "adapter": Convolutions().record()}
    model = make_model(tmp_path / "model", **described, image=image)
    page = Page(browser, running(model=model), tmp_path)
    volume = np.random.default_rng(0).integers(0, 256, (9, 20, 24)).astype(np.uint8)
    content = io.BytesIO()
    np.savez(content, test_images=volume[None])
    page.drop(("a.npz", content.getvalue()))
    page.wait(lambda: page.text("slice-text") == "Slice 5 of 9")
    page.press("h")
    page.wait(lambda: page.one("legend").is_displayed())
    picture = lambda: page.browser.execute_script("return document.getElementById('canvas').toDataURL()")  # noqa: E731
    for number in (6, 7, 8, 9):
        page.press("]")
        page.wait(lambda number=number: page.text("slice-text") == f"Slice {number} of 9")
        shown = page.wait(lambda: page.one("legend").is_displayed() and picture())
        page.press("h")
        page.wait(lambda: not page.one("legend").is_displayed())
        page.wait(lambda shown=shown: picture() != shown)
        page.press("h")
    assert page.complaints() == []


def test_a_reader_signs_in_and_is_offered_nothing_that_is_not_theirs(
    browser: Any, running: Callable[..., str], trained_model: Path, tmp_path: Path
) -> None:
    users = Users(tmp_path / "users.json")
    users.add("Zoe", Role.READER, "correct horse battery")
    browser.get(running(model=trained_model, users=users.path))
    wait = WebDriverWait(browser, SECONDS)
    form = wait.until(lambda _: browser.find_element(By.ID, "password"))
    wait.until(lambda _: form.is_displayed())
    browser.find_element(By.ID, "name").send_keys("Zoe")
    form.send_keys("wrong", Keys.ENTER)
    wait.until(lambda _: "No user" in browser.find_element(By.ID, "problem").text)
    form.send_keys("correct horse battery", Keys.ENTER)
    wait.until(lambda _: "signed in as Zoe" in browser.find_element(By.ID, "served").text)
    assert not form.is_displayed()
    assert not browser.find_element(By.ID, "label-form").is_displayed()
    browser.execute_script("sessionStorage.clear()")


def test_the_page_asks_nobody_else_and_runs_nothing_that_stands_in_it(url: str) -> None:
    answer = requests.get(url)
    names = ["page.css", "main.js", "words/en.json"]
    for text in (answer.text, *(requests.get(f"{url}/page/{name}").text for name in names)):
        assert "https://" not in text and "http://" not in text
    assert "<style" not in answer.text and "<script>" not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for name in ("../page.py", "%2e%2e/page.py", "..%2fusers.py", "nothing.js", ""):
        assert requests.get(f"{url}/page/{name}").status_code == 404


@pytest.mark.slow
def test_a_whole_session(browser: Any, running: Callable[..., str], uninterrupted: Any, tmp_path: Path) -> None:
    """Label 20 images, undo one, add a class, learn it, see what came of it, and go back."""
    url = running(run_dir=uninterrupted.output, **LENIENT, training_settings={"device": "cpu"})
    page = Page(browser, url, tmp_path)
    version = int(page.text("served").split()[1])
    page.keep(*(png(100 + number) for number in range(20)))
    browser.refresh()
    page.wait(lambda: "of 20" in page.text("progress-text") and "not looked at" not in page.text("progress-text"))
    page.wait(lambda: page.all("#rows [aria-selected=true]"))
    for number in range(20):
        page.judged()
        page.wait(lambda: page.text("reading") != "")
        if number < 12:
            page.name("rings, new")
            if number == 0:
                page.answer("New class ‘rings, new’")
        elif number == 12:
            page.name("single")
            page.answer("New class ‘single’")
        else:
            page.press(str(1 + number % 4))
        page.wait(lambda labelled=number + 1: page.counted() == (labelled, 20))
    page.wait(lambda: "All images of this list are done." in page.text("said"))
    page.press("u")
    page.wait(lambda: page.counted() == (19, 20))
    page.judged()
    page.look("session-1-labelled", "dark")
    page.go("learning")
    page.wait(lambda: page.text("learn") == "Learn ‘rings, new’")
    assert "single: it needs images of 1 more patient" in page.text("ready")
    page.browser.execute_script("document.querySelector('#learning details').open = true")
    page.one("epochs").send_keys("3")
    page.one("learn").click()
    assert page.answer("Learn").startswith("Learn rings, new, without single?")
    page.wait(lambda: "pass" in page.text("training-step"), 3 * SECONDS)
    assert page.one("stop").is_displayed() and not page.one("learn").is_enabled()
    assert "single was left out: too few images." in page.text("training-text")
    page.look("session-2-learning")
    assert page.faults() == []
    page.wait(lambda: "answers now" in page.text("training-text"), 5 * SECONDS)
    page.wait(lambda: page.text("served").startswith(f"Version {version + 1} "))
    page.go("versions")
    page.wait(lambda: len(page.all("#version-rows tr")) == version + 1)
    page.wait(lambda: any(row.startswith("rings, new") and "New" in row for row in page.rows("compare-rows")))
    changes = page.rows("compare-rows")
    assert all("of 100" in row.lower() or "before" in row or "none of its test images" in row for row in changes)
    page.browser.execute_script("document.getElementById('steps').open = true")
    page.wait(lambda: page.all("#matrix td"))
    page.look("session-3-learnt", *THEMES)
    assert page.faults() == []
    page.one("back").click()
    assert page.answer(f"Serve version {version}").endswith("Nothing is deleted.")
    page.wait(lambda: page.text("served").startswith(f"Version {version} "))
    page.wait(lambda: f"Version {version} answers again." in page.text("served-text"))
    page.browser.find_element(By.CSS_SELECTOR, f"[aria-label='Serve version {version + 1} again']").click()
    page.answer(f"Serve version {version + 1}")
    page.wait(lambda: page.text("served").startswith(f"Version {version + 1} "))
    page.one("back").click()
    page.answer(f"Serve version {version}")
    page.wait(lambda: page.text("served").startswith(f"Version {version} "))
    page.go("learning")
    page.wait(lambda: page.text("learn") == "Learn ‘rings, new’")
    assert page.complaints() == []
