"Helpers that every room uses: the best few with ties, arguments by their annotations"
import inspect
import numpy as np, pandas as pd, pytest, torch
from fastcf.core import ArgumentError, check_count, check_range, check_share, check_types, id_repr, short_repr, stable_topk

def plain_topk(scores, k):
    "Value descending, then row ascending, by Python's own sort"
    rows = sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:k]
    return [scores[j] for j in rows],rows

@pytest.mark.parametrize('n,k,levels', [(1, 1, 1), (7, 3, 1), (7, 7, 2), (5, 9, 3), (200, 10, 2), (200, 10, 5), (1000, 40, 30), (1000, 999, 3), (300, 10, 10**6)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.int64])
def test_best_few_are_those_of_a_plain_sort(n, k, levels, dtype):
    scores = torch.as_tensor(np.random.default_rng(n + k + levels).integers(0, levels, (20, n))).to(dtype)
    before = scores.clone()
    values,rows = stable_topk(scores, k)
    want = [plain_topk(o, k) for o in scores.tolist()]
    assert values.tolist() == [v for v,_ in want] and rows.tolist() == [r for _,r in want] and (scores == before).all()
    one = stable_topk(scores[0], k)
    assert one[0].tolist() == want[0][0] and one[1].tolist() == want[0][1]

def test_best_few_among_scores_that_were_struck_out():
    scores = torch.full((3, 50), float('-inf'))
    scores[0, [40, 7]] = 1.
    scores[2, 3] = float('inf')
    assert stable_topk(scores, 4)[1].tolist() == [[7, 40, 0, 1], [0, 1, 2, 3], [3, 0, 1, 2]]

@pytest.mark.parametrize('shape', [(0, 5), (3, 0), (0,), (2, 0, 4), (2, 3, 4)])
def test_best_few_of_nothing_and_of_stacks(shape):
    values,rows = stable_topk(torch.zeros(shape), 2)
    assert values.shape == rows.shape == (*shape[:-1], min(2, shape[-1])) and (rows == torch.arange(rows.shape[-1])).all()

@pytest.mark.parametrize('k', [0, -1, 1.5, None, '3', float('nan')])
def test_best_few_needs_a_count(k):
    with pytest.raises(ValueError, match='^k: '): stable_topk(torch.zeros(3), k)

def test_best_few_refuses_nan():
    scores = torch.zeros(4, 30)
    scores[2, 17] = float('nan')
    with pytest.raises(ValueError, match='^scores: .*NaN'): stable_topk(scores, 2)

# --- arguments by their annotations

@check_types
def called(df:pd.DataFrame, k:int=5, metric:str|None=None, *, seed:int|None=None, pair:tuple|None=(1, 2), user_name:str=None, x:float=1., flag:bool=True, other=None, **kwargs): return 'a result'

@pytest.mark.parametrize('kwargs', [dict(), dict(k=np.int64(3)), dict(metric=None), dict(metric='rmse'), dict(seed=None), dict(seed=2**40), dict(pair=None), dict(pair=[1, 2]), dict(user_name=0), dict(x=2), dict(x=np.float32(2)), dict(flag=0), dict(flag=np.True_), dict(other=object()), dict(more='x')])
def test_what_fits_its_annotation_passes(kwargs): assert called(pd.DataFrame(), **kwargs) == 'a result'

@pytest.mark.parametrize('name,value,words', [('k', True, 'a whole number'), ('k', 1.5, 'a whole number'), ('k', None, 'a whole number'), ('metric', 3, 'a text'), ('seed', -1, 'a whole number from 0'), ('seed', 'x', 'a whole number from 0'), ('pair', 3, 'a tuple'),
                                              ('user_name', ['user'], "a column's name"), ('x', float('nan'), 'a number'), ('x', '2', 'a number'), ('x', True, 'a number'), ('flag', 2, 'True or False'), ('flag', 'no', 'True or False'), ('df', [1], 'a pandas DataFrame')])
def test_what_does_not_is_named(name, value, words):
    args,kwargs = (value,) if name == 'df' else (pd.DataFrame(),),{} if name == 'df' else {name: value}
    with pytest.raises(ArgumentError, match=f'^{name}: expected {words}, got '): called(*args, **kwargs)
    assert issubclass(ArgumentError, ValueError) and issubclass(ArgumentError, TypeError)

def test_a_checked_function_keeps_its_face():
    assert called.__name__ == 'called' and list(inspect.signature(called).parameters)[:2] == ['df', 'k']
    with pytest.raises(TypeError, match='positional'): called()

def test_large_things_are_named_by_their_shape():
    assert short_repr(np.zeros((1000, 3))) == 'ndarray of shape (1000, 3)' and len(short_repr('x' * 1000)) == 60

@pytest.mark.parametrize('check,value', [(check_count, np.int64(-2)), (check_count, np.float32(1.5)), (check_share, np.float64(2)), (check_range, (np.int64(5), np.int64(1))), (check_range, [np.float32(1)])])
def test_messages_show_numbers_as_they_are_typed(check, value):
    with pytest.raises(ValueError) as e: check('k', value)
    assert 'np.' not in str(e.value) and str(e.value).endswith(f'got {id_repr(value)}')

def test_no_message_shows_what_came_in_numpys_words():
    from pathlib import Path
    import fastcf, re
    rooms = sorted(Path(fastcf.__file__).parent.rglob('*.py'))
    assert len(rooms) > 50 and [(p.name, line.strip()) for p in rooms for line in p.read_text(encoding='utf-8').splitlines() if re.search(r'got \{[\w.]+!r\}', line)] == []
