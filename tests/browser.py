"What tests in a browser share: Chromium, axe-core, and a word where one is missing"
import os, shutil
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
FLAGS = '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()

def needed(found, what):
    "Skip where a tool of the browser tests is missing, but not in CI"
    if found: return found
    if os.environ.get('CI'): pytest.fail(f'{what} is missing: .ci/run should have installed it')
    pytest.skip(f'{what} is missing: `make browser` installs it')

@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    path = needed(next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None), 'Chromium')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()

@pytest.fixture(scope='module')
def axe():
    path = ROOT/'.venv/axe/node_modules/axe-core/axe.min.js'
    return needed(path.exists() and path.read_text(), 'axe-core')
