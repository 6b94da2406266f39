"The table in the documentation: whatever is wrong with an input, fastcf says so by name"
import pytest
from benchmarks import bad_inputs

@pytest.mark.slow
def test_every_bad_input_is_named():
    rows = bad_inputs.rows()
    said = {o['input']: o['fastcf'] for o in rows}
    assert len(said) == len(bad_inputs.INPUTS) + 4
    for what,words in said.items():
        expected = 'RecommenderFileError: ' if 'file' in what else 'UnknownIdError: ' if 'nobody' in what else 'RatingsError: '
        assert words.startswith(expected) or 'opening' in what, (what, words)
    assert bad_inputs.table(rows).count('\n') == len(rows) + 1
