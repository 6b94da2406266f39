import pytest

def pytest_configure(config): config.addinivalue_line('markers', 'slow: minutes; run with -m slow')

def pytest_collection_modifyitems(config, items):
    if 'slow' in (config.option.markexpr or ''): return
    for o in items:
        if o.get_closest_marker('slow') and 'serve' in o.nodeid: o.add_marker(pytest.mark.skip(reason='slow: run with -m slow'))
