"""The page in a real browser: Debian's Chromium, at the width of a desk and of a phone."""

import random
import time

import pytest

from alignkit.testing import run_cli
from alignkit_report import page

pytestmark = pytest.mark.slow
ACC = "eval/answer_reward"


@pytest.fixture
def written(make_run, load, sample, tmp_path):
    """The report of a sweep of three variants, two seeds each, one of them diverged."""
    for place, lr in enumerate((1e-5, 1e-4, 1e-3)):
        for seed in (0, 1):
            draw = random.Random(f"{lr}/{seed}")
            rows = [
                {
                    ACC: 0.3 + 0.2 * place * step / 20 + draw.gauss(0, 0.02),
                    "train/loss": draw.gauss(0, 0.1),
                    "eval/response_length": 20.0 + step,
                    "eval/response_length_correct": 18.0 + step,
                    "eval/response_length_incorrect": 25.0 + step,
                    "time/rollout": 1.0,
                    "odd metric": 1.0,
                }
                for step in range(21)
            ]
            said = [sample(i % 2 == 0, "<script>document.title='owned'</script>") for i in range(4)]
            files = {f"eval/step_{s:06d}.jsonl": said for s in (0, 10, 20)}
            made = make_run(f"s/lr={lr:g}/seed_{seed}", rows, samples=files, lr=lr, seed=seed)
    (made / "stopped.json").write_text('{"status": "diverged", "reason": "loss not finite"}')
    path = tmp_path / "report.html"
    page.write(load(tmp_path / "s"), path, "Learning rates")
    return path


CURVES = "[...document.querySelectorAll('.chart')][0].querySelectorAll('.curve').length"


SEEN = "[...document.querySelectorAll('.plot')].filter(p => p.checkVisibility())"


@pytest.mark.parametrize("width", [1280, 390])
def test_charts_are_seen_without_an_error_or_a_sideways_scroll(written, browser, tmp_path, width):
    chromium = browser(width)
    chromium.open(written)
    sizes = chromium.js(
        f"{SEEN}.map(p => p.getBoundingClientRect()).map(r => [r.left, r.right, r.height])"
    )
    assert len(sizes) == 3  # accuracy, loss, length; the odd one is folded away
    assert all(left >= 0 and right <= width and height > 150 for left, right, height in sizes)
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert chromium.js("document.title") == "Learning rates"
    chromium.screenshot(tmp_path / f"{width}.png")
    assert (tmp_path / f"{width}.png").stat().st_size > 20_000
    assert chromium.console() == []


def test_the_legend_toggles_and_the_axis_changes(written, browser):
    chromium = browser(1280)
    chromium.open(written)
    assert chromium.js(CURVES) == 3
    assert chromium.js("document.querySelectorAll('.band').length") > 0
    assert (
        chromium.js("document.querySelectorAll('.plot')[0].querySelectorAll('.stop').length") == 1
    )
    chromium.js("document.querySelector('.legend button').click()")
    assert chromium.js(CURVES) == 2
    assert chromium.js("document.querySelector('.legend button').ariaPressed") == "false"
    chromium.js("document.querySelector('.legend button').click()")
    assert chromium.js(CURVES) == 3
    labels = "[...document.querySelectorAll('.plot text:not(.stop)')].at(LAST).textContent"
    first_chart = "document.querySelector('.plot').querySelectorAll('text:not(.stop)').length - 1"
    labels = labels.replace("LAST", first_chart)
    assert chromium.js(labels) == "20"
    chromium.js("document.querySelector('[data-axis=time]').click()")
    assert chromium.js(labels) == "40 s"  # two seconds a step
    for button in range(3):
        chromium.js(f"document.querySelectorAll('.legend button')[{button}].click()")
    assert chromium.js("document.querySelector('.plot').textContent") == "nothing selected"
    assert chromium.console() == []


def test_folded_charts_are_drawn_when_opened_and_samples_follow_the_step(written, browser):
    chromium = browser(1280)
    chromium.open(written)
    chromium.js("document.querySelector('details').open = true")
    chromium.js("new Promise(done => setTimeout(done, 200))")
    assert chromium.js(f"{SEEN}.length") == 4
    assert chromium.js("document.querySelectorAll('.sample.right').length") == 2
    assert chromium.js("document.getElementById('step').textContent") == "step 20"
    chromium.js("(w => { w.value = 0; w.oninput(); })(document.getElementById('when'))")
    assert chromium.js("document.getElementById('step').textContent") == "step 0"
    assert "<script>" in chromium.js("document.querySelector('.sample').textContent")
    assert chromium.console() == []


def test_hovering_tells_the_values(written, browser):
    chromium = browser(1280)
    chromium.open(written)
    chromium.js(
        "(box => { const r = box.querySelector('.plot').getBoundingClientRect();"
        "box.dispatchEvent(new PointerEvent('pointermove', {clientX: r.right - 20, clientY: r.top"
        " + 50})); })(document.querySelector('.chart'))"
    )
    tip = chromium.js("document.querySelector('.tip').textContent")
    assert tip.startswith("step 20")
    assert "lr=1e-05" in tip
    assert "n = 2" in tip


@pytest.fixture
def many(make_run, load, sample, tmp_path):
    """Write the report of a number of settings with long names and many metrics."""

    def write(settings):
        for i in range(settings):
            names = ("n_correct", "n_format_only", "n_neither", "response_length", "token_entropy")
            values = {f"eval/{name}": 10.0 + i for name in (*names, "format_reward")}
            values |= {f"train/{name}": 1.0 for name in ("reward", "loss", "token_entropy")}
            rows = [{ACC: 0.3 + i / 1000, "time/rollout": 1.0} | values for _ in range(5)]
            name = f"s/learning_rate={i},a_rather_long_name_of_a_setting/seed_0"
            files = {"eval/step_000000.jsonl": [sample(True)]}
            make_run(name, rows, samples=files, lr=1e-4 * (i + 1), group=f"{i}")
        path = tmp_path / "report.html"
        page.write(load(tmp_path / "s"), path, "Many")
        return path

    return write


WIDER = """[...document.querySelectorAll(".scroll, .tall")]
  .filter(e => e.scrollWidth > e.clientWidth + 1).length"""
GAPS = """[...document.querySelectorAll('.charts')].filter(e => e.checkVisibility()).map(grid => {
  const edge = grid.getBoundingClientRect().right, rows = {};
  for (const c of grid.children) {
    const r = c.getBoundingClientRect();
    rows[r.top] = Math.max(rows[r.top] || 0, r.right);
  }
  return Math.max(...Object.values(rows).map(right => edge - right));
})"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("settings", [1, 4, 17, 200])
def test_tables_fit_the_page_and_charts_leave_no_gap(many, browser, width, settings):
    chromium = browser(width)
    chromium.open(many(settings))
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert chromium.js(WIDER) == 0
    assert max(chromium.js(GAPS)) <= 1
    assert chromium.js("document.documentElement.scrollHeight") < 12_000  # not a row for each run
    assert chromium.console() == []


def test_of_many_lines_a_tip_tells_the_closest(many, browser):
    chromium = browser(1280)
    chromium.open(many(200))
    chromium.js(
        "(box => { const r = box.querySelector('.plot').getBoundingClientRect();"
        "box.dispatchEvent(new PointerEvent('pointermove', {clientX: r.right - 20, clientY: r.top"
        " + 12})); })(document.querySelector('.chart'))"
    )
    tip = chromium.js("document.querySelector('.tip').textContent")
    assert tip.count("a_rather_long_name") == 12
    assert "learning_rate=199," in tip  # the highest, beside the pointer
    assert "188 more" in tip


def test_single_seeds_stand_behind_the_means_and_bands_widen_on_demand(written, browser):
    """Three settings of two seeds; the band of the first setting, from its polygon's corners."""
    chromium = browser(1280)
    chromium.open(written)
    chart = "[...document.querySelectorAll('.chart')][0]"
    assert chromium.js(f"{chart}.querySelectorAll('.seed').length") == 6
    first, curve = f"{chart}.querySelector('.seed')", f"{chart}.querySelector('.curve')"
    assert chromium.js(f"{first}.compareDocumentPosition({curve}) & 4") == 4  # drawn before it
    points = f"{chart}.querySelector('.band').getAttribute('points')"
    narrow = chromium.js(points)
    chromium.js("document.querySelector('[data-band=range]').click()")
    wide = chromium.js(points)
    assert wide != narrow
    assert chromium.js("document.querySelector('[data-band=range]').ariaPressed") == "true"
    chromium.js("document.querySelector('[data-band=error]').click()")
    assert chromium.js(points) == narrow
    assert chromium.console() == []


def test_a_page_of_200_long_runs_is_opened_and_used(make_run, load, sample, browser, tmp_path):
    answers = [sample(i % 2 == 0, "x" * 5_000) for i in range(8)]
    said = {f"{k}/step_{s:06d}.jsonl": answers for k in ("eval", "rollouts") for s in range(4)}
    for i in range(200):
        draw = random.Random(i)
        rows = [{ACC: draw.random(), "train/loss": draw.random()} for _ in range(500)]
        make_run(f"s/lr={i}/seed_0", rows, samples=said, lr=i, seed=0)
    path = tmp_path / "report.html"
    page.write(load(tmp_path / "s"), path, "Many")
    assert path.stat().st_size < 22 * 2**20
    chromium = browser(1280)
    began = time.monotonic()
    chromium.open(path)
    assert len(chromium.js(SEEN)) == 2
    assert chromium.js(CURVES) == 200
    assert time.monotonic() - began < 30
    assert chromium.console() == []


def test_many_settings_have_samples_of_fewer_steps():
    assert page.steps_of(1) == page.steps_of(40) == page.MOST_STEPS
    assert page.steps_of(400) == page.steps_of(10**6) == 1
    for sets in (80, 120, 300, 600):
        assert page.steps_of(sets) * sets * 2 * page.EACH <= page.PAGE_SAMPLES


@pytest.mark.parametrize(("settings", "bands"), [(8, True), (9, False)])
def test_bands_are_drawn_for_settings_that_do_not_hide_each_other(
    make_run, tmp_path, browser, settings, bands
):
    for i in range(settings):
        for seed in (0, 1):
            rows = [{"eval/answer_reward": 0.1 * seed}, {"eval/answer_reward": 0.5}]
            make_run(f"s/n{i}/seed_{seed}", rows, seed=seed)
    run_cli("report", str(tmp_path / "s"), "--out", str(tmp_path / "many.html"))
    chromium = browser(1280)
    chromium.open(tmp_path / "many.html")
    assert chromium.js("document.querySelectorAll('.band').length > 0") == bands
    chromium.js("document.querySelector('.legend button').click()")
    assert chromium.js("document.querySelectorAll('.band').length") > 0
    assert chromium.console() == []
