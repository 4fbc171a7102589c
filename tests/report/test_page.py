"""The page in a real browser: what a reader does with it, what a hostile run must not do, and how it looks on paper."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.run_folders import decay, math_metrics, png, rows, write_run, write_sweep

from athlos.cli.report import write_report

pytestmark = pytest.mark.slow

ATTACK = '</script><img src=x onerror="window.hacked=1"><svg onload="window.hacked=1">'
REVERSED, INVISIBLE = "abc\u202edcba", "zero\u200bwidth"
JOINED = "\u0645\u06cc\u200c\u0631\u0648\u0645"  # Persian, with a joiner that belongs there
CONTRAST = """
const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = (rgb) => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
const contrast = (one, other) => { const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05); };
"""


class Page:
    """A report open in the browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def names(self) -> list[str]:
        """Runs in the rows of the table, from the top."""
        return self.texts("#table tbody th bdi")

    def column(self, name: str) -> list[str]:
        heads = self.run("return [...document.querySelectorAll('#table thead th')].map((one) => one.dataset.column)")
        return self.run(
            "return [...document.querySelectorAll('#table tbody tr')].map((r) => r.children[arguments[0]].textContent)",
            heads.index(name),
        )

    def drawing(self) -> str:
        """The pixels of the chart."""
        return self.run("return document.querySelector('#chart canvas').toDataURL()")

    def click(self, selector: str) -> None:
        """A real click, on an element scrolled into the middle, where nothing lies over it."""
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def click_head(self, column: str) -> str:
        self.click(f"#table th[data-column='{column}'] button")
        return self.one(f"#table th[data-column='{column}']").get_attribute("aria-sort")

    def type(self, selector: str, text: str) -> None:
        element = self.one(selector)
        element.clear()
        if text:
            element.send_keys(text)
        else:  # clear() alone makes no input event
            self.run("arguments[0].dispatchEvent(new Event('input'))", element)

    def pick(self, selector: str, value: str) -> None:
        self.click(f"{selector} option[value='{value}']")

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 learning rates x 3 seeds, a run that failed, one without numbers for a while, one without a config."""
    results = tmp_path_factory.mktemp("page") / "results"
    write_sweep(results)
    write_run(results / "failed", config={"seed": 9}, state="failed", error="NumericalError", message="loss is nan")
    curve = [
        {**record, "train/loss": None} if 50 < record["step"] < 70 and "train/loss" in record else record
        for record in decay(lr=0.1, seed=1, steps=range(5, 205, 5))
    ]
    metrics, details = math_metrics(lr=0.1, seed=1)
    write_run(results / "gap", config={"train.lr": 0.1}, metrics=metrics, details=details, curve=curve)
    unread = write_run(results / "unread", metrics={"test/acc": 0.25})
    (unread / "config.yaml").write_text("{{{")
    return write_report(results, out=results.parent / "report.html", title="A sweep")


@pytest.fixture
def page(driver: Any, sweep: Path) -> Page:
    driver.set_window_size(1366, 768)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    return Page(driver, sweep)


@pytest.fixture
def open_page(driver: Any, tmp_path: Path) -> Callable[..., Page]:
    def build(results: Path, **options: Any) -> Page:
        return Page(driver, write_report(results, out=tmp_path / "report.html", **options))

    return build


def test_sorting(page: Page):
    assert page.click_head("test/acc") == "descending", "the best value first"
    values = [
        float(re.match(r"[\u2605\s]*([\d.]+?\d{3})", text)[1])
        for text in page.column("test/acc")
        if text[0] != "\u2013"
    ]
    assert values == sorted(values, reverse=True)
    assert len(values) == 11
    assert page.column("test/acc")[-1] == "\u2013", "a missing value stands last"
    assert page.run("return document.activeElement.closest('th').dataset.column") == "test/acc", "focus stays"
    assert page.click_head("test/acc") == "ascending"
    assert page.column("test/acc")[-1] == "\u2013", "in both orders"
    assert page.click_head("test/acc") == "none"
    assert page.names() == sorted(page.names())
    page.click_head("train.lr")
    assert page.column("train.lr")[:4] == ["0.001"] * 4
    assert page.errors() == []


def test_the_best_value_is_marked_where_the_direction_is_known(page: Page):
    marked = page.run(
        """return [...document.querySelectorAll('#table .best')]
          .map((one) => one.closest('tr').querySelector('bdi').textContent)"""
    )
    assert len(marked) == 3  # test/acc, test/runaway_rate and val/loss; not the cost, not the seed
    accs = {row["name"]: dict((m[0], m[1]) for m in row["metrics"]) for row in data_of(page)["runs"]}
    index = data_of(page)["metrics"].index("test/acc")
    best = max((name for name in accs if index in accs[name] and name != "unread"), key=lambda name: accs[name][index])
    assert best in marked


def data_of(page: Page) -> dict[str, Any]:
    return json.loads(page.run("return document.getElementById('data').textContent"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 12),
        ("S1-LR0.01", 1),
        ("lr=0.01", 3),
        ("train.lr>=0.01", 4),
        ("lr<0.01 seed=1", 2),
        ("state!=finished", 1),
        ("state=failed", 1),
        ("acc>=0", 11),
        ("test/acc<-1", 0),
        ("run~gap", 1),
        ('"no such words"', 0),
        ('data.name="sums"', 11),
        ("lr=", 12),
        ("constructor=1", 12),
        ("lr>high", 12),
    ],
)
def test_filtering(page: Page, text: str, number: int):
    page.type("#filter", text)
    assert len(page.names()) == number
    assert page.one("#found").text == f"{number} of 12 runs"
    wrong = {"constructor=1": "no column", "lr>high": "is no number"}.get(text, "")
    assert wrong in page.one("#filter-error").text
    assert bool(page.one("#filter-error").text) == bool(wrong)
    assert page.errors() == []


def test_a_choice_of_runs_drives_the_rest(page: Page):
    assert page.one("#selected-count").text == "11 runs selected"
    page.click("#select-none")
    assert page.one("#selected-count").text == "0 runs selected"
    assert "Select runs" in page.one("#chart").text
    page.type("#filter", "lr=0.01")
    page.click("#select-shown")
    assert page.texts("#legend bdi") == ["seed 1", "seed 2", "seed 3"]
    assert page.texts("#differences tbody th") == ["seed"], "only what differs among the chosen"
    assert len(page.all("#languages tbody tr")) == 3
    page.click("#table tbody tr:nth-child(2) input")
    assert page.texts("#legend bdi") == ["seed 1", "seed 3"]
    assert len(page.all("#cost tbody tr")) == 2
    assert page.errors() == []


def test_a_run_without_a_config_makes_no_difference(page: Page):
    page.click("#select-shown")
    assert page.texts("#differences tbody th") == ["train.lr", "seed"]
    assert "1 run without a readable config" in page.one("#differences").text


def test_columns_are_chosen(page: Page):
    heads = "#table thead th button"
    assert "test/acc/de" not in page.texts(heads)
    page.click("#columns summary")
    page.type("#columns input[type=search]", "acc/de")
    page.click("#columns fieldset label")
    assert "test/acc/de" in page.texts(heads)
    page.type("#columns input[type=search]", "study")
    page.click("#columns fieldset label")
    assert "study" not in page.texts(heads)


def test_the_metric_and_the_scale_are_picked(page: Page):
    page.pick("#curve-metric", "train/loss")
    assert page.one("#chart [role=img]").get_attribute("aria-label") == "train/loss by step, 10 lines"
    assert page.texts("#chart .axis-name") == ["train/loss"]
    linear = page.drawing()
    page.click("#log")
    assert page.texts("#chart .axis-name") == ["train/loss, log scale"]
    assert page.drawing() != linear
    assert page.one("#chart [role=img]").get_attribute("aria-label") == "train/loss by step, 10 lines"
    looks = page.run(
        """return [...document.querySelectorAll('#legend line')].map(
          (one) => one.getAttribute('class') + one.getAttribute('stroke-dasharray'))"""
    )
    assert len(set(looks)) == len(looks) == 10, "no two lines look alike"
    assert "3 points without a value" in page.one("#chart-note").text
    page.click("#legend li:nth-child(1) button")
    assert page.one("#chart [role=img]").get_attribute("aria-label") == "train/loss by step, 9 lines"
    assert page.errors() == []


def test_every_line_is_drawn_in_the_colour_of_its_legend(page: Page):
    page.pick("#curve-metric", "train/loss")
    wanted = page.run(
        "return [...document.querySelectorAll('#legend line')].slice(0, 7).map((one) => getComputedStyle(one).stroke)"
    )
    assert len(set(wanted)) == 7
    drawn = page.run(
        """const canvas = document.querySelector('#chart canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const found = {};
        for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) {
          const colour = `rgb(${data[at]}, ${data[at + 1]}, ${data[at + 2]})`;
          found[colour] = (found[colour] || 0) + 1;
        }
        return found"""
    )
    assert min(drawn.get(colour, 0) for colour in wanted) > 100


def test_smoothing_keeps_the_line_as_recorded(page: Page):
    page.pick("#curve-metric", "train/loss")
    before = page.drawing()
    page.pick("#smoothing", "0.9")
    assert page.drawing() != before
    assert "the thin line is as recorded" in page.one("#chart-note").text
    page.pick("#smoothing", "0")
    assert page.drawing() == before


def test_seeds_become_a_mean_with_a_band(page: Page):
    page.pick("#curve-metric", "train/loss")
    page.click("#group")
    assert page.texts("#legend bdi")[:2] == ["lr 0.001 (mean of 3 seeds)", "lr 0.003 (mean of 3 seeds)"]
    assert page.one("#chart [role=img]").get_attribute("aria-label") == "train/loss by step, 4 lines"
    assert "bands reach from the lowest to the highest run" in page.one("#chart-note").text
    page.one("#chart").send_keys("\ue014")  # right arrow: the first point of the first line
    found = float(re.search(r"step 5: ([\d.]+)", page.one("#readout").text)[1])
    curves = [decay(lr=1e-3, seed=seed, steps=range(5, 205, 5))[0]["train/loss"] for seed in (1, 2, 3)]
    assert found == pytest.approx(sum(curves) / 3, abs=2e-4)
    low, high = re.search(r"\(([\d.]+) \u2013 ([\d.]+)\)", page.one("#readout").text).groups()
    assert (float(low), float(high)) == pytest.approx((min(curves), max(curves)), abs=2e-3)


def test_means_over_seeds_are_those_of_python(page: Page):
    from athlos.report.seeds import seed_mean

    found = page.texts("#seeds tbody tr:nth-child(1) td")
    heads = page.texts("#seeds thead th")
    values = [math_metrics(lr=1e-3, seed=seed)[0]["val/loss"] for seed in (1, 2, 3)]
    mean = seed_mean([value for value in values if value is not None])
    shown = found[heads.index("val/loss") - 1]
    assert shown.startswith(f"{mean.mean:.3f}\u00b1 ")
    assert float(shown.partition("\u00b1 ")[2]) == pytest.approx((mean.high or 0) - mean.mean, abs=6e-4)


def test_hovering_reads_the_nearest_point(page: Page):
    from selenium.webdriver import ActionChains

    page.pick("#curve-metric", "train/loss")
    chart = page.one("#chart")
    page.run("arguments[0].scrollIntoView({block: 'center'})", chart)
    assert not page.one("#readout").is_displayed()
    ActionChains(page.driver).move_to_element_with_offset(chart, 120, 40).perform()
    read = page.one("#readout")
    assert read.is_displayed()
    step, value = re.match(r"step (\d+): ([\d.]+)\n", read.text).groups()
    label = read.text.splitlines()[1]
    lr, seed = re.match(r"lr ([\d.]+), seed (\d)", label).groups()
    points = {
        one["step"]: one["train/loss"]
        for one in decay(lr=float(lr), seed=int(seed), steps=range(5, 205, 5))
        if "train/loss" in one
    }
    assert float(value) == pytest.approx(points[int(step)], abs=1e-3)
    box, place = read.rect, chart.rect
    cursor = page.one("#chart .u-cursor-pt").rect
    mouse = place["x"] + place["width"] / 2 + 120
    assert abs(cursor["x"] + cursor["width"] / 2 - mouse) < 20, "points stand 30 pixels from each other"
    assert box["x"] >= place["x"]
    assert box["x"] + box["width"] <= place["x"] + place["width"], "the read-out stays in the chart"
    ActionChains(page.driver).move_to_element(page.one("#curves-title")).perform()
    assert not read.is_displayed()
    assert page.errors() == []


def test_points_are_read_by_keyboard(page: Page):
    chart = page.one("#chart")
    page.pick("#curve-metric", "val/loss")
    for key, step in (("\ue014", 50), ("\ue014", 100), ("\ue012", 50), ("\ue015", 50)):
        chart.send_keys(key)
        assert page.one("#readout").text.startswith(f"step {step}: ")
    assert "lr 0.003" in page.one("#readout").text, "down goes to the next line"
    chart.send_keys("\ue00c")
    assert not page.one("#readout").is_displayed()


def test_a_prediction_is_opened(page: Page):
    wanted = rows(12, seed=1)
    assert page.texts("#item .text-box pre") == [wanted[0]["prompt"], wanted[0]["prediction"], wanted[0]["gold"]]
    page.click("#items li:nth-child(4)")
    assert page.texts("#item .text-box pre") == [wanted[3]["prompt"], wanted[3]["prediction"], wanted[3]["gold"]]
    page.one("#items").send_keys("\ue015")
    assert page.one("#items [aria-selected=true]").get_attribute("id") == "item-4"
    assert page.texts("#item .text-box pre")[0] == wanted[4]["prompt"]
    assert page.one("#items").get_attribute("aria-activedescendant") == "item-4"
    others = page.texts("#item .others td.long")
    assert others[0] == rows(12, seed=1)[4]["prediction"], "another learning rate, the same seed of the rows"
    page.pick("#prediction-wanted", "wrong")
    assert len(page.all("#items li")) == sum(row["acc"] == 0 for row in wanted)
    page.pick("#prediction-wanted", "all")
    page.type("#prediction-search", "12 apples")
    assert page.texts("#item .text-box pre")[0] == wanted[10]["prompt"]
    page.type("#prediction-search", "no such words")
    assert "No row fits" in page.one("#item").text
    assert page.errors() == []


def test_languages_are_readable_on_every_colour(page: Page):
    assert page.texts("#languages thead th") == ["run", "all", "bn", "de", "en", "sw", "th", "zh"]
    assert page.one("#languages thead th:nth-child(4)").get_attribute("title") == "German"
    assert page.texts("#languages tbody tr:nth-child(1) td")[5] == "undef."
    worst = page.run(
        CONTRAST
        + """return Math.min(...[...document.querySelectorAll('.heat td.cell:not(.absent)')].map((one) => {
          const style = getComputedStyle(one); return contrast(style.color, style.backgroundColor); }))"""
    )
    assert worst >= 4.5
    assert (
        page.run(
            "return new Set([...document.querySelectorAll('.heat td.cell')].map((o) => o.style.backgroundColor)).size"
        )
        > 4
    )


def test_figures_and_provenance(page: Page):
    assert len(page.all("#figures img")) == 9
    assert page.run(
        "return [...document.querySelectorAll('#figures img')].every((one) => one.complete && one.naturalWidth === 60)"
    )
    page.click("#provenance details:nth-of-type(1) summary")
    text = page.one("#provenance details").text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "torch 2.13.0" in text
    assert "No command" in text, "the invented runs do not say theirs"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(page: Page, scheme: str):
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    found = page.run(
        CONTRAST
        + """const probe = document.body.appendChild(document.createElement('i'));
        const rgb = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
        const ground = rgb('ground');
        return ['ink', 'quiet', 'accent', 'good', 'bad', 's0', 's1', 's2', 's3', 's4', 's5', 's6'].map(
          (name) => [name, contrast(rgb(name), ground), contrast(rgb(name), rgb('panel')), ground]);"""
    )
    for name, on_ground, on_panel, _ in found:
        assert min(on_ground, on_panel) >= (2.7 if name.startswith("s") else 4.5), name
    assert (found[0][3] == "rgb(255, 255, 255)") == (scheme == "light")


WRITTEN = """
const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...box) {
  this.canvas.written = [];
  return clearRect.apply(this, box);
};
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const { width, actualBoundingBoxAscent: up, actualBoundingBoxDescent: down } = this.measureText(text);
  const at = this.getTransform().transformPoint({ x, y });
  const left = at.x - { left: 0, right: width, center: width / 2 }[this.textAlign];
  (this.canvas.written ??= []).push({ text, left, right: left + width, top: at.y - up, bottom: at.y + down });
  return fillText.call(this, text, x, y);
};
"""
"""Notes what is written on a canvas since it was cleared, and where, in its pixels."""


@pytest.fixture
def noted(driver: Any, sweep: Path) -> Iterator[Callable[[int], Page]]:
    """The page in a window of some width; its canvases know what is written on them."""
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WRITTEN})

    def of(width: int) -> Page:
        driver.set_window_size(width, 768)
        return Page(driver, sweep)

    yield of
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script["identifier"]})


@pytest.mark.parametrize("width", [1366, 1024, 640])
def test_the_page_fits_the_window_and_ticks_are_apart(noted: Callable[[int], Page], width: int):
    page = noted(width)
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for metric in ("train/loss", "train/lr", "val/loss"):
        page.pick("#curve-metric", metric)
        page.click("#log")
        canvas = page.run(
            """const canvas = document.querySelector('#chart canvas');
            return { ...canvas.getBoundingClientRect().toJSON(), written: canvas.written,
                     pixels: [canvas.width, canvas.height] }"""
        )
        texts = canvas["written"]
        assert canvas["right"] <= width
        assert len(texts) > 6
        assert [text["text"] for text in texts].count("step") == 1
        for one in texts:
            assert min(one["left"], one["top"]) >= 0, one["text"]
            assert one["right"] <= canvas["pixels"][0], one["text"]
            assert one["bottom"] <= canvas["pixels"][1], one["text"]
        assert [
            (one["text"], other["text"])
            for at, one in enumerate(texts)
            for other in texts[:at]
            if one["left"] < other["right"]
            and other["left"] < one["right"]
            and one["top"] < other["bottom"]
            and other["top"] < one["bottom"]
        ] == [], metric
    assert page.errors() == []


def test_it_is_printed_whole(page: Page):
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert not page.one("#nav").is_displayed()
    assert not page.one("#filter").is_displayed()
    assert page.run("return getComputedStyle(document.querySelector('.scroll.tall')).maxHeight") == "none"
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [dark]})
    page.run(
        """addEventListener('beforeprint', () => {
          window.opened = document.querySelectorAll('details.run dl').length;
          window.ground = getComputedStyle(document.documentElement).getPropertyValue('--ground').trim(); })"""
    )
    pdf = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 25
    assert page.run("return window.opened") == 11, "the details stand open on paper"
    assert page.run("return window.ground") == "#fff", "a dark page is printed on white"
    assert page.all("details.run[open]") == [], "and are closed again"
    assert page.errors() == []


def test_nothing_is_asked_of_the_network(page: Page):
    for selector in ("#select-none", "#select-shown", "#items li:nth-child(2)", "#provenance summary"):
        page.click(selector)
    asked = [
        message["params"]["request"]["url"]
        for entry in page.driver.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert asked, "the page itself is asked for"
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert page.errors() == []


def test_the_policy_refuses_what_is_injected(page: Page):
    page.run(
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1'; document.body.append(one)"
    )
    assert page.run("return window.ran === undefined")
    assert any("Content Security Policy" in message for message in page.errors())


def test_hostile_text_is_text(open_page: Callable[..., Page], tmp_path: Path):
    results = tmp_path / "results"
    row = {
        "id": ATTACK,
        "language": "en",
        "prompt": ATTACK + REVERSED,
        "prediction": JOINED,
        "gold": [ATTACK],
        "acc": 1.0,
        ATTACK: ATTACK,
        "__proto__": {"hacked": 1},
    }
    for seed, folder in enumerate(("<img src=x onerror=window.hacked=1>", "b\u202egnp")):
        write_run(
            results / folder,
            config={
                "study": ATTACK,
                "data.name": ATTACK,
                "train.note": f"{INVISIBLE} {seed}",
                "train.huge": "x" * 200_000,
                f"train.{ATTACK.replace('.', '')}": seed,
                "seed": seed,
            },
            metrics={
                "test/acc": 0.5 + seed / 10,
                f"test/{ATTACK}": 1.0,
                "__proto__": 1.0,
                "test/acc/<b>": 1.0,
                "test/acc/de": 0.1,
                "test/acc/fr": 0.2,
            },
            curve=[{"step": 1, "time": 0, ATTACK: 1.0}, {"step": 2, "time": 0, ATTACK: 2.0}],
            predictions={"<b>suite": [row]},
            figures={"<img onerror=alert(1)>.png": png()},
            provenance={"commit": ATTACK, "hardware": {ATTACK: ATTACK}, ATTACK: ATTACK, "stages": ATTACK},
            start=ATTACK,
            end=REVERSED,
            error=ATTACK,
            message=ATTACK + REVERSED,
        )
    write_run(results / "odd", state=ATTACK, metrics={"test/acc": 0.1})
    page = open_page(results, title=ATTACK + REVERSED)
    page.click("#select-shown")
    for summary in ("#provenance summary", "#columns summary"):
        page.click(summary)
    page.click("#columns summary")
    page.type("#filter", "<img")
    page.type("#filter", "")
    for column in ("test/acc", "name"):
        page.click_head(column)
    page.one("#chart").send_keys("\ue014")
    assert page.run("return window.hacked") is None
    assert page.run("return ({}).hacked") is None
    assert (
        page.run(
            "return document.querySelectorAll('img:not([src^=\"data:image/png\"]), [onerror], [onload], b').length"
        )
        == 0
    )
    assert page.run("return document.scripts.length") == 2
    body = page.run("return document.body.textContent")
    assert page.one("#title").text == ATTACK + "abc\u27e8U+202E\u27e9dcba"
    assert page.texts("#item .text-box pre")[0] == ATTACK + "abc\u27e8U+202E\u27e9dcba"
    assert page.texts("#item .text-box pre")[1] == JOINED, "a joiner of the script stays"
    assert "zero\u27e8U+200B\u27e9width" in body
    assert "<img src=x onerror=window.hacked=1>" in page.names()
    shown = page.run(
        """const walker = document.createTreeWalker(document.getElementById('main'), NodeFilter.SHOW_TEXT);
        let all = ''; while (walker.nextNode()) all += walker.currentNode.data; return all"""
    )
    assert "\u202e" not in shown
    assert "\u200b" not in shown
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.errors() == []


def test_claims_stand_beside_what_the_runs_show(open_page: Callable[..., Page], tmp_path: Path):
    for number, hidden in enumerate((256, f"{ATTACK}{INVISIBLE}")):
        write_run(
            tmp_path / "results" / str(number),
            config={
                "study": "spannorm_step",
                "benchmark": "spannorm_step",
                "options.layers": 12,
                "options.hidden": hidden,
            },
            metrics={"ratio/spannorm/prenorm": 1.0125},
            details={"ratio/spannorm/prenorm": {"n": 20, "undefined": 0, "low": 1.0, "high": 1.015}},
        )
    page = open_page(tmp_path / "results")
    cells = page.texts("#claims tbody tr:first-child > *")
    assert cells == [
        "span.cost",
        "1 ratio (note)",
        "step, spannorm / prenorm layers=12 hidden=256",
        "1.012 [1, 1.015]",
        "reproduced",
    ]
    second = page.texts("#claims tbody tr:nth-child(2) bdi")[0]
    assert ATTACK[:20] in second
    assert "\u200b" not in second
    assert page.run("return window.hacked") is None
    assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.errors() == []


def test_many_runs_come_in_chunks(open_page: Callable[..., Page], tmp_path: Path):
    for number in range(230):
        write_run(
            tmp_path / "results" / f"run-{number:03d}", config={"seed": number}, metrics={"test/acc": number / 230}
        )
    page = open_page(tmp_path / "results")
    assert len(page.names()) == 100
    assert page.one("#selected-count").text == "8 runs selected"
    page.click_head("test/acc")
    assert page.names()[0] == "run-229", "sorting is over all runs, not over those in sight"
    page.click("#more button:nth-of-type(1)")
    assert len(page.names()) == 200
    page.click("#more button:nth-of-type(2)")
    assert len(page.names()) == 230
    page.type("#filter", "seed=7")
    assert page.names() == ["run-007"]
    page.type("#filter", "")
    page.click("#select-shown")
    assert page.one("#selected-count").text == "230 runs selected"
    assert "first 60 of 230" in page.one("#cost, #provenance").text
    assert page.errors() == []


def test_one_run_that_has_next_to_nothing(open_page: Callable[..., Page], tmp_path: Path):
    write_run(tmp_path / "results" / "only", state="running")
    page = open_page(tmp_path / "results")
    assert page.names() == ["only"]
    assert page.texts("#nav a") == ["Runs", "Provenance"]
    assert page.errors() == []
