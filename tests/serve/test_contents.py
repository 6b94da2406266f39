"Every clause of what is checked before a recommender's numbers are used: just within it is taken, just beyond is refused by name"
import hashlib, json, shutil
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
import fastcf.all
from fastcf.bayes.engines import Gibbs
from fastcf.cold.proxies import ProxyQuestions
from fastcf.core import UnknownIdError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.learn.learner import cf_learner
from fastcf.serve import contents
from fastcf.serve.contents import read_contents
from fastcf.serve.format import SUMS, Folder, RecommenderFileError

@pytest.fixture(scope='module')
def learn():
    "With every part that a folder can have: samples, metadata of both sides, priors that serve ids without ratings, topics"
    df = simulate_ratings(30, 24, 500, seed=4)
    df['time'] = np.arange(len(df)) * 3600
    users = pd.DataFrame(dict(user=range(33), age=np.random.default_rng(0).integers(10, 70, 33)))
    items = pd.DataFrame(dict(item=range(26), title=[f'T{i}' for i in range(26)], kind=list('ab') * 13))
    dls = CFDataLoaders.from_df(df, valid_pct=.1, seed=0, users=users, items=items, time_name='time', device='cpu')
    learn = cf_learner(dls, factor_count=3, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(12, cbs=Gibbs(seed=0, time_bins=(86_400,)))
    learn.attach_prior(users=True, items=True)
    return learn

@pytest.fixture(scope='module')
def saved(learn, tmp_path_factory): return learn.save_recommender(tmp_path_factory.mktemp('saved')/'r', proxies=ProxyQuestions(learn, 'kind'), samples=3)

@pytest.fixture
def folder(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'r'))

def load(folder):
    with Folder(folder) as f: return read_contents(f)

def sum_again(folder):
    names = sorted(p.name for p in folder.iterdir() if p.name not in (SUMS, 'README.md'))
    (folder/SUMS).write_text(''.join(f'{hashlib.sha256((folder/n).read_bytes()).hexdigest()}  {n}\n' for n in names))

def set_json(folder, name, path, value):
    d = at = json.loads((folder/name).read_text())
    for k in path[:-1]: at = at[k]
    at[path[-1]] = value
    (folder/name).write_text(json.dumps(d)); sum_again(folder)

def set_tensors(folder, name, change):
    from safetensors.torch import load_file, save_file
    t = {k: v.clone() for k,v in load_file(folder/name).items()}
    change(t)
    save_file({k: v.contiguous() for k,v in t.items()}, folder/name); sum_again(folder)

# --- numbers of JSON

@pytest.mark.parametrize('o,number', [(0, True), (-1.5, True), (9e299, True), (True, False), ('1', False), (None, False), (1e300, False), (-1e300, False), (10**400, False), (float('nan'), False), (float('inf'), False)])
def test_what_counts_as_a_number(o, number): assert contents._number(o) is number

@pytest.mark.parametrize('o,pair', [([1, 2], True), ([1., 1], True), ([2, 1], False), ((1, 2), False), ([1], False), ([1, 2, 3], False), ([1, '2'], False), ([True, 2], False), (12, False)])
def test_what_counts_as_a_pair(o, pair): assert contents._pair(o) is pair

@pytest.mark.parametrize('o,least,count', [(0, 0, True), (-1, 0, False), (1, 1, True), (0, 1, False), (2**40 - 1, 0, True), (2**40, 0, False), (True, 0, False), (1., 0, False)])
def test_what_counts_as_a_count(o, least, count): assert contents._count(o, *[least] * (least > 0)) is count

# --- what recommender.json says

CLAIMS = {
    "'user'": {('user', 'name'): [None, 3], ('user', 'count'): [0, -1, 30., True], ('user', 'noise'): [0, -1, '1', None, 1e300], ('user', 'serves'): [None, 1, 'no'], ('user', 'attached', 'count'): [-1, 1.5], ('user', 'attached', 'noise'): [0, -2, 'x']},
    "'item'": {('item', 'name'): [[]], ('item', 'noise'): [0]},
    'a count': {('factor_count',): [-1, '3', 2**40], ('seen_count',): [-1, 2.5]},
    "'limits' or 'y_range'": {('limits',): [None, [5, 1], [1], [1, '5']], ('y_range',): [[5, 1], 3, [1, None]]},
    "'rating_name' or 'made'": {('rating_name',): [None, 3], ('made',): [None, [], {}, {'at': 'x'}, {'at': 'x', 'fastcf': 3}, {'at': 1, 'fastcf': 'x'}]},
    "'parts'": {('parts',): [None, {}, ['about.safetensors', 3]]},
    "'choice'": {('choice', 'unobserved'): [0, -1, 'x'], ('choice', 'penalty'): [0, None], ('choice', 'lowest'): [0, -.1], ('choice', 'curve'): [[1], [1, 2, 3], [1, 'x'], 3, {}], ('choice', 'rating_range'): [[5, 1], 3], ('choice',): [None]},
    "'samples'": {('samples', 'mean'): ['x', None], ('samples', 'sd'): [0, -1, 'x'], ('samples', 'time_bins'): [None, [0], [1.5], [86_400] * 16, 3], ('samples',): [None]}}

@pytest.mark.parametrize('words,path,value', [(w, p, v) for w,paths in CLAIMS.items() for p,values in paths.items() for v in values])
def test_a_claim_that_cannot_be_is_refused(folder, words, path, value):
    set_json(folder, 'recommender.json', path, value)
    with pytest.raises(RecommenderFileError, match=f'recommender.json: {words} is not as it was written'): load(folder)

@pytest.mark.parametrize('path', [('user', 'name'), ('user', 'attached', 'count'), ('choice', 'curve'), ('samples', 'sd'), ('made',)])
def test_a_key_that_is_missing_or_too_many_is_named(folder, path):
    d = at = json.loads((folder/'recommender.json').read_text())
    for k in path[:-1]: at = at[k]
    was = at.pop(path[-1])
    for change in (lambda: None, lambda: at.update({path[-1]: was, 'more': 1})):
        change()
        (folder/'recommender.json').write_text(json.dumps(d)); sum_again(folder)
        with pytest.raises(RecommenderFileError, match='is missing|was not expected'): load(folder)

def test_what_a_claim_may_be_is_taken(folder):
    for path,value in ((('y_range',), [1, 1]), (('limits',), [3, 3.5]), (('user', 'noise'), 1e-9), (('choice', 'curve'), [-1, 0]), (('choice', 'rating_range'), [1, 1]), (('samples', 'mean'), -3), (('samples', 'sd'), 1e-9)): set_json(folder, 'recommender.json', path, value)
    assert load(folder)['info']['limits'] == [3, 3.5]

def test_parts_and_what_is_said_of_them_go_together(folder):
    info = json.loads((folder/'recommender.json').read_text())
    for part in ('choice', 'samples'):
        set_json(folder, 'recommender.json', ['parts'], [o for o in info['parts'] if o != f'{part}.safetensors'])
        with pytest.raises(RecommenderFileError, match=f"'{part}' is not as"): load(folder)
    set_json(folder, 'recommender.json', ['parts'], [o for o in info['parts'] if o != 'about.safetensors'])
    with pytest.raises(RecommenderFileError, match='it names the parts'): load(folder)
    shutil.move(folder/'about.safetensors', folder.parent/'about.safetensors'); sum_again(folder)
    with pytest.raises(RecommenderFileError, match="'about' does not fit the parts"): load(folder)
    set_json(folder, 'ids.json', ['about'], None)
    assert 'about' not in load(folder)['parts'] and 'topics' in load(folder)['parts']
    set_json(folder, 'recommender.json', ['parts'], [o for o in info['parts'] if o not in ('about.safetensors', 'interview.safetensors')])
    (folder/'interview.safetensors').unlink(); sum_again(folder)
    with pytest.raises(RecommenderFileError, match="'topics' does not fit the parts"): load(folder)

def test_a_folder_without_parts(learn, tmp_path):
    got = load(learn.save_recommender(tmp_path/'r', interview=False, samples=0))
    assert set(got['parts']) == {'choice'} and got['info']['samples'] is None

# --- tensors

def fill(key, value, at=...): return lambda t: t[key].__setitem__(at, value)
def replace(key, f): return lambda t: t.__setitem__(key, f(t[key]))
def skew(key): return lambda t: t[key].__setitem__((0, 1), t[key][0, 1] + .2 * t[key].diagonal().min())

TENSORS = {'tables': {
    'is not a precision': [skew('user.prior_precision'), fill('item.prior_precision', 0.), skew('user.attached_precision'), fill('item.every_precision', -1.)],
    'has to be positive': [fill('user.attached_times', 0., 0), fill('item.attached_times', -1., 1)],
    'numbers that are not finite': [fill('item.attached_mean', float('inf'), (0, 0)), fill('user.prior_mean', float('nan'), 0)],
    'do not rise from 0': [fill('seen.offsets', 1, 0), fill('seen.offsets', 10**6, -1), fill('seen.offsets', 10**6, 3), fill('seen.offsets', -1, 3)],
    'point beyond the items': [fill('seen.items', 24, 0), fill('seen.items', -1, -1)],
    'the counts are not those': [fill('user.counts', 0, 0), fill('item.counts', 10**6, 3), lambda t: t['seen.items'].__setitem__(0, (t['seen.items'][0] + 1) % 24)]},
  'interview': {
    'do not fit one another': [replace('audiences', lambda o: o[:, 1:]), replace('habits_mean', lambda o: o[1:]), replace('habits_precision', lambda o: o[1:]), replace('habits_precision', lambda o: o[:, 1:]), replace('f_mean', lambda o: o[1:]), replace('weight', lambda o: o[1:]), replace('values', lambda o: o[:0])],
    'is not positive': [fill('habits_precision', 0.), fill('residual', 0.), fill('noise', 0., 0), fill('noise', -1., -1)],
    'not finite': [fill('popularity', float('nan'), 0)]},
  'choice': {'of different lengths': [replace('users', lambda o: o[:, 1:])], 'not finite': [fill('items', float('inf'), (0, 0))]},
  'samples': {
    'do not fit one another': [replace('items', lambda o: o[:, :, 1:]), replace('noise', lambda o: o[1:]), replace('users', lambda o: o[1:]), replace('user_noise', lambda o: o[1:]), replace('levels_0', lambda o: o[1:]), replace('precisions_0', lambda o: o[1:])],
    'differ in number': [replace('known_0', lambda o: o[1:])],
    'a noise is not positive': [fill('noise', 0., 0), fill('user_noise', -1., (0, 0)), fill('item_noise', 0., (1, 1)), fill('precisions_0', 0., 0)]},
  'about': {'do not fit': [replace('f_mean', lambda o: o[1:]), replace('x_mean', lambda o: o[1:]), replace('inverse', lambda o: o[:, :0]), replace('weight', lambda o: o[:, 1:]), fill('residual', -1.)]},
  'topics': {'do not fit': [replace('mean', lambda o: o[1:]), replace('spread', lambda o: o[1:]), replace('items', lambda o: o[1:]), fill('items', 26, 0), fill('items', -1, 0), fill('topics', 2, 0), fill('topics', -1, 0), fill('spread', 0.)]}}

@pytest.mark.parametrize('name,words,n', [(name, w, n) for name,kinds in TENSORS.items() for w,changes in kinds.items() for n in range(len(changes))])
def test_tensors_that_cannot_be_are_refused(folder, name, words, n):
    set_tensors(folder, f'{name}.safetensors', TENSORS[name][words][n])
    with pytest.raises(RecommenderFileError, match=f'{name}.safetensors: .*{words}'): load(folder)

def test_nothing_left_of_a_part_is_refused(folder):
    def none(t): t.update({k: v[:0] if k != 'habits_precision' else v[:0, :0] for k,v in t.items() if k in ('habits_mean', 'habits_precision', 'f_mean', 'weight')}, audiences=t['audiences'][:, :0])
    set_tensors(folder, 'interview.safetensors', none)
    with pytest.raises(RecommenderFileError, match='do not fit one another'): load(folder)

@pytest.mark.parametrize('change', [lambda t: {k: v[:, :, :0] if k in ('users', 'items') else v for k,v in t.items()}, lambda t: {k: v if k.startswith(('known', 'chain')) else v[:0] for k,v in t.items()}])
def test_samples_of_nothing_are_refused(folder, change):
    set_tensors(folder, 'samples.safetensors', lambda t: t.update(change(t)))
    with pytest.raises(RecommenderFileError, match='do not fit one another'): load(folder)

# --- ids

@pytest.mark.parametrize('path,value,words', [
    (['user_attached', 'values'], [], "'user_attached' are not the"), (['about'], [3], "'about' cannot be read"), (['item', 'dtype'], 'complex128', "'item' cannot be read"), (['user', 'values', 0], {'exec': 'x'}, "'user' cannot be read"), (['items'], 3, 'metadata of items cannot be read'),
    (['topics'], 3, "'topics' is not as"), (['topics'], [['kind', ['a', 3]]], "'topics' is not as"), (['topics'], [['kind', 'ab']], "'topics' is not as"), (['topics'], [[3, ['a', 'b']]], "'topics' is not as"),
    (['topics'], [['kind', ['a', 'b'], 1]], "'topics' is not as"), (['topics'], ['kind'], "'topics' is not as"), (['topics'], [['kind', ['a']]], "do not fit 'topics'"), (['topics'], [], "do not fit 'topics'")])
def test_ids_that_cannot_be_are_refused(folder, path, value, words):
    set_json(folder, 'ids.json', path, value)
    with pytest.raises(RecommenderFileError, match=words): load(folder)

# --- what is believed of those a prior serves

def test_a_side_is_the_learners(learn, saved):
    got = load(saved)
    for name in ('user', 'item'):
        side,prior = got[name],learn.learned.prior(name)
        assert len(side.known) == {'user': 33, 'item': 26}[name] and list(side.known)[:len(side.vocab)] == list(side.vocab)
        vocab,counts,belief,at = side.columns
        assert len(vocab) == len(counts) == len(at) == len(side.known)
        new = counts == 0
        assert torch.equal(at >= 0, new) and at[new].tolist() == list(range(int(new.sum()))) and belief.mean.shape == (int(new.sum()), 4)
        ids = list(prior.df.index[:5])
        want = prior.ready().prior.prior(prior.df, ids)
        said = side.attached.of(ids)
        torch.testing.assert_close(said.mean, want.mean, rtol=1e-4, atol=1e-5); torch.testing.assert_close(said.precision, want.precision, rtol=1e-3, atol=1e-4)
        other = side.attached.of([10**6, ids[0]])
        torch.testing.assert_close(other.mean[0], side.attached.every.mean); torch.testing.assert_close(other.precision[0], side.attached.every.precision)
        torch.testing.assert_close(other.mean[1], said.mean[0])
        assert torch.equal(side.attached.serve([10**6]).mean[0], side.attached.every.mean) # an id that nobody has heard of may be somebody new
        for odd in ('7', None, float('nan')):
            with pytest.raises(UnknownIdError): side.attached.serve([ids[0], odd])
        torch.testing.assert_close(side.unit.norm(dim=1), torch.ones(len(side.vocab))); assert torch.equal(side.design[:, -1], torch.ones(len(side.vocab))) and torch.equal(side.offsets, side.vectors[:, -1])

def test_beliefs_about_ids_of_any_kind():
    from fastcf.bayes.posterior import Gaussian
    from fastcf.data.vocab import Vocab
    for ids,new,odd in ((['a', 'b'], 'c', 3), ([1, 2], 3, 'a'), ([1.5, 2.5], 3.5, 'a')):
        b = contents.MetadataBeliefs(Vocab(ids, 'item'), torch.eye(2), torch.tensor([1., 4.]), torch.eye(2) * 8, Gaussian(torch.full((2,), 9.), torch.eye(2)), .5)
        got = b.serve([ids[1], new, ids[0]])
        assert got.mean.tolist() == [[0, 1], [9, 9], [1, 0]] and got.precision[:, 0, 0].tolist() == [2, 1, 8]
        with pytest.raises(UnknownIdError, match='1 unknown id'): b.serve([ids[0], odd, new])
    pairs = contents.MetadataBeliefs(Vocab([('a', 1), ('b', 2)], 'item'), torch.eye(2), torch.ones(2), torch.eye(2), Gaussian(torch.zeros(2), torch.eye(2)), .5)
    assert pairs.serve([('b', 2), ('a', 1)]).mean.tolist() == [[0, 1], [1, 0]]
