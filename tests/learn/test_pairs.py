"Intervals around predictions: worked out without pandas' columns, the same numbers, types and index"
from statistics import NormalDist
import numpy as np, pandas as pd, pytest
from fastcf.learn.pairs import add_spread

@pytest.mark.parametrize('limits', [None, (1, 5)])
@pytest.mark.parametrize('kind', ['float32', 'float64'])
def test_spread_is_the_plain_one(limits, kind):
    df = pd.DataFrame(dict(user=list('abcd'), prediction=np.array([1.2, 3, 4.9, np.nan], dtype=kind)), index=[7, 3, 3, 0])
    before,std = df.copy(),np.array([.5, 1, 2, np.nan], dtype=kind)
    got,z = add_spread(df, std, .9, True, limits),NormalDist().inv_cdf(.95)
    assert list(got.columns) == ['user', 'prediction', 'std', 'low', 'high'] and got.index.tolist() == [7, 3, 3, 0] and (got.dtypes[1:] == kind).all()
    for name,s in (('low', -1), ('high', 1)):
        want = (df.prediction + s * z * std).clip(*(limits or (None, None)))
        np.testing.assert_allclose(got[name].to_numpy(), want.to_numpy(), rtol=1e-5)
    assert df.equals(before) and add_spread(df, std, None).equals(df) and list(add_spread(df, std, .5).columns) == ['user', 'prediction', 'low', 'high']
    series = add_spread(df, std, .9, quantile=lambda p: pd.Series(np.full(4, p), index=[0, 1, 2, 3])) # by position, whatever its index
    np.testing.assert_allclose(series.low, .05)
    with pytest.raises(ValueError, match='interval'): add_spread(df, std, 90)
