"A recommender as a folder: the same answers as the learner's, whole or not there, and one error for whatever is wrong with it"
import hashlib, inspect, json, os, random, re, shutil, signal, subprocess, sys, threading, time, uuid
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
import fastcf.all # every method of a learner
from fastcf.bayes.engines import Gibbs
from fastcf.cold.proxies import ProxyQuestions
from fastcf.core import RatingsError, UnknownIdError
from fastcf.data.loaders import CFDataLoaders
from fastcf.data.sources import simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.learn.learner import CFLearner, cf_learner
from fastcf.learn.neural import neural_net
from fastcf.learn.two_tower import two_towers
from fastcf.serve import format as fmt
from fastcf.serve.format import SUMS, Folder, RecommenderFileError, from_json, to_json, write_folder
from fastcf.serve.recommender import Recommender

def make(y_range=(.5, 5.5), factors=4, ids=lambda o: o, seed=0, epochs=1, **kwargs):
    "A small fitted learner"
    df = simulate_ratings(40, 60, 900, seed=3)
    df['user'],df['item'] = [ids(int(o)) for o in df.user],[ids(int(o)) for o in df.item]
    names = pd.Series(sorted(df.item.unique()))
    items = pd.DataFrame(dict(item=names, title=[f'Film {o}' for o in names], year=pd.array([1950 + j if j % 7 else None for j in range(len(names))], dtype='Int64'), genres=[('A', 'B')[:j % 3] for j in range(len(names))]))
    dls = CFDataLoaders.from_df(df, valid_pct=.1, seed=seed, items=items, device='cpu', **kwargs)
    learn = cf_learner(dls, factor_count=factors, y_range=y_range, seed=seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 2e-2)
    return learn

@pytest.fixture(scope='module')
def learn(): return make()

@pytest.fixture(scope='module')
def saved(learn, tmp_path_factory): return learn.save_recommender(tmp_path_factory.mktemp('saved')/'films')

@pytest.fixture
def folder(saved, tmp_path): return Path(shutil.copytree(saved, tmp_path/'films'))

def sum_again(folder):
    "Write SHA256SUMS anew, as whoever alters a folder on purpose would"
    names = sorted(p.name for p in folder.iterdir() if p.name not in (SUMS, 'README.md'))
    (folder/SUMS).write_text(''.join(f'{hashlib.sha256((folder/n).read_bytes()).hexdigest()}  {n}\n' for n in names))

def alike(a, b): pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-4, check_dtype=False) # scores are settled to 1e-5, chances are steeper

# --- the same answers

def answers(o, learn):
    "What both say to the same questions"
    c = learn.dls.catalog
    rated = [learn.dls.counts(j).nonzero()[:, 0].numpy() for j in ('user', 'item')]
    users,items = (list(v[r[:9]]) for v,r in zip((c.user, c.item), rated))
    new = dict(zip(items[:4], (5, 4, 1, 3)))
    first = o.fold_in(new)
    yield o.predict(users, items)
    yield o.predict(users[0], items, interval=.8, return_std=True)
    yield o.recommend(users, 5)
    yield o.recommend(users[:2], 3, exclude_seen=False, min_ratings=12)
    yield o.recommend(users[:2], 3, items=items)
    yield o.recommend(users, 5, rank_by='rating')
    yield o.recommend(users, 5, interval=.8)
    yield o.recommend(users, 5, rank_by='chance')
    yield o.similar_items(items[:3], 4)
    yield o.similar_users(users[:3], 4)
    yield o.biases()
    yield o.biases('user', 3)
    yield o.factors()
    yield o.fold_in({}).recommend(4)
    yield first.predict(interval=.9, return_std=True)
    yield first.explain(items[6])
    yield first.predict_all()
    yield first.recommend(6, min_ratings=3)
    yield first.recommend(6, rank_by='rating', interval=.8)
    yield first.recommend(6, rank_by='chance', exclude_seen=False)
    yield first.update({items[5]: 2}).predict(items=items, return_std=True)
    yield o.fold_in_items(dict(zip(users[:3], (1, 5, 3)))).recommend(4)
    yield o.fold_in_items(dict(zip(users[:3], (1, 5, 3)))).predict(users=users, return_std=True)

@pytest.mark.parametrize('y_range', [(.5, 5.5), None])
def test_says_what_the_learner_says(tmp_path, y_range):
    learn = make(y_range)
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    for a,b in zip(answers(r, learn), answers(learn, learn), strict=True): alike(a, b)
    top,c = r.recommend([int(u) for u in learn.dls.catalog.user[learn.dls.counts('user').numpy() > 0][:3]], 4),learn.choice
    rows = [torch.as_tensor(v.rows(list(top[v.name]))) for v in (learn.dls.catalog.user, learn.dls.catalog.item)]
    score,(low, high) = (c.users[rows[0]] * c.items[rows[1]]).sum(1).numpy(),c.rating_range
    bottom = low - (high - low) / 8
    assert top.value.to_numpy() == pytest.approx(np.where(score > 0, score * (top.prediction.clip(low, high) - bottom) / (high - bottom), score), abs=5e-5)
    assert isinstance(r.predict(r.user.vocab[0], r.item.vocab[0]), float)

def test_says_what_the_learner_says_of_those_a_prior_serves(tmp_path):
    df = simulate_ratings(50, 70, 1500, seed=4)
    users = pd.DataFrame(dict(user=range(60), age=np.random.default_rng(0).integers(10, 70, 60)))
    items = pd.DataFrame(dict(item=range(80), title=[f'T{i}' for i in range(80)], kind=list('abcd') * 20))
    dls = CFDataLoaders.from_df(df[(df.user != 3) & (df.item != 5)], valid_pct=.1, seed=0, users=users, items=items, device='cpu')
    learn = cf_learner(dls, factor_count=3, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    learn.attach_prior(users=True, items=True)
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    pairs = pd.DataFrame(dict(user=[0, 55, 3, 0, 999], item=[0, 0, 75, 75, 5]))
    alike(r.predict(pairs, interval=.9, return_std=True), learn.predict(pairs, interval=.9, return_std=True))
    for kw in (dict(min_ratings=0), dict(items=[1, 75, 5]), {}): alike(r.recommend([0, 55, 3], 5, **kw), learn.recommend([0, 55, 3], 5, **kw))
    alike(r.fold_in({1: 5, 2: 3}).predict(), learn.fold_in({1: 5, 2: 3}).predict())
    new = pd.DataFrame(dict(user=[55, 55, 56], item=[1, 2, 1], rating=[5, 4, 1]))
    alike(r.fold_in(new).recommend(3), learn.fold_in(new).recommend(3))
    for say in (lambda o: o.fold_in({1: 5, 75: 1, 5: 2}), lambda o: o.fold_in_items({1: 5, 55: 2, 3: 4}), lambda o: o.fold_in(new[:2].assign(item=[75, 5])), lambda o: o.fold_in({1: 5}).update({75: 1})):
        mine,hers = say(r),say(learn) # one new row each
        assert torch.allclose(mine.mean, hers.mean, atol=1e-4)
        alike(mine.predict(return_std=True), hers.predict(return_std=True))
        alike(mine.recommend(90, min_ratings=0), hers.recommend(90, min_ratings=0))
    with pytest.raises(UnknownIdError, match='999'): r.fold_in({999: 5})
    assert len(r.fold_in({999: 5, 75: 4}, unknown='drop').values) == 1
    with pytest.raises(UnknownIdError, match='text'): r.predict('0', 0)
    said = json.loads((tmp_path/'r/ids.json').read_text())
    assert [o['name'] for o in said['about']] == ['age'] and said['about'][0]['values'] == [] # what ages say in general goes along, nobody's age does
    assert json.dumps(users.age.tolist())[1:-1] not in (tmp_path/'r/ids.json').read_text()

@pytest.fixture(scope='module')
def rich():
    "A learner after `Gibbs`, with metadata of both sides and questions about a genre"
    df = simulate_ratings(50, 40, 900, seed=4)
    df['time'] = np.arange(len(df)) * 3600
    users = pd.DataFrame(dict(user=range(50), age=np.random.default_rng(0).integers(10, 70, 50), job=list('abcde') * 10))
    items = pd.DataFrame(dict(item=range(40), title=[f'T{i}' for i in range(40)], kind=list('abcd') * 10, year=[1950 + i % 9 for i in range(40)]))
    dls = CFDataLoaders.from_df(df, valid_pct=.1, seed=0, users=users, items=items, time_name='time', device='cpu')
    learn = cf_learner(dls, factor_count=3, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(12, cbs=Gibbs(seed=0, time_bins=(86_400,)))
    return learn,[ProxyQuestions(learn, 'kind'), ProxyQuestions(learn, 'year')],df

@pytest.fixture(scope='module')
def rich_saved(rich, tmp_path_factory): return rich[0].save_recommender(tmp_path_factory.mktemp('rich')/'r', proxies=rich[1])

def test_samples_predict_as_before(rich, rich_saved):
    (learn,_,df),r = rich,Recommender.load(rich_saved)
    pairs = df[['user', 'item']].head(30)
    for kw in (dict(interval=.9, return_std=True), dict(times=df.time.head(30).to_numpy(), interval=.5), {}): alike(r.posterior.predict(pairs, **kw), learn.posterior.predict(pairs, **kw))
    alike(r.posterior.diagnostics(), learn.posterior.diagnostics())
    assert r.posterior.verdict() == learn.posterior.verdict()
    for f in (r.posterior.scores, r.posterior.calibration):
        with pytest.raises(ValueError, match='validation ratings, which are not in a saved recommender'): f()

def test_fewer_samples_and_none(rich, tmp_path):
    learn = rich[0]
    some = Recommender.load(learn.save_recommender(tmp_path/'some', samples=4, interview=False))
    assert 1 <= len(some.posterior.states) <= 4
    with pytest.raises(AttributeError, match='saved without samples'): Recommender.load(learn.save_recommender(tmp_path/'none', samples=0, interview=False)).posterior

@pytest.mark.parametrize('chosen', [True, 'kind', ['year', 'kind']])
def test_interviews_with_topics_and_what_is_known(rich, rich_saved, chosen):
    (learn,proxies,_),r = rich,Recommender.load(rich_saved)
    by_name,about = {q.encoder.attribute: q for q in proxies},dict(age=20, job='b')
    names = list(by_name) if chosen is True else [chosen] if isinstance(chosen, str) else chosen
    a,b = r.interview(6, 3, about=about, proxies=chosen),Interview(learn, 6, 3, about=about, proxies=[by_name[n] for n in names])
    kinds = set()
    for said in ((5, None, 2, 1, 4), (1, 2, 3)):
        page = a.next_page()
        alike(page.drop(columns='reply'), b.next_page().drop(columns='reply'))
        kinds |= set(page.kind)
        for iv in (a, b): iv.answer(dict(zip(iv.open_page, said)))
        alike(a.recommend(5), b.recommend(5)); alike(a.explain(3), b.explain(3))
    back = r.interview(state=a.to_json())
    assert len(kinds) > 1 and back.replies == a.replies and back.about == about
    alike(back.recommend(5), a.recommend(5))

def test_what_interviews_were_saved_without(rich, saved, rich_saved):
    plain,r = Recommender.load(saved),Recommender.load(rich_saved)
    with pytest.raises(ValueError, match='about: this recommender was saved without metadata of users'): plain.interview(about=dict(age=3))
    with pytest.raises(ValueError, match='proxies: this recommender was saved without them'): plain.interview(proxies=True)
    with pytest.raises(ValueError, match="proxies: 'colour' was not saved; there are kind, year"): r.interview(proxies='colour')
    with pytest.raises(ValueError, match='proxies: they are asked about in interviews'): rich[0].save_recommender('x', interview=False, proxies=rich[1])

def test_two_towers_are_saved_as_their_vectors(rich, tmp_path):
    learn = cf_learner(rich[0].dls, model=two_towers(4), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    for a,b in zip(answers(r, learn), answers(learn, learn), strict=True): alike(a, b)

class Plain(torch.nn.Module):
    "A bilinear model of somebody's own; with `bend`, one that says it is"
    def __init__(self, users, items, bend=0.):
        super().__init__()
        self.u,self.i,self.bend = torch.nn.Parameter(torch.randn(users, 4) * .1),torch.nn.Parameter(torch.randn(items, 4) * .1),bend
    def link(self, raw): return raw
    def user_vectors(self): return self.u[:, :3]
    def item_vectors(self): return self.i[:, :3]
    def biases(self, side): return (self.i if side == 'item' else self.u)[:, 3] + (3. if side == 'item' else 0.)
    def forward(self, users, items): return (self.user_vectors()[users] * self.item_vectors()[items]).sum(1) + self.biases('user')[users] + self.biases('item')[items] + self.bend * users.float()

def test_any_bilinear_model_is_saved_and_no_other(learn, tmp_path):
    fitted = lambda model: cf_learner(learn.dls, model=model, seed=0)
    mine = fitted(lambda dls: Plain(len(dls.catalog.user), len(dls.catalog.item)))
    r = Recommender.load(mine.save_recommender(tmp_path/'r'))
    alike(r.predict(r.user.vocab[0], list(r.item.vocab[:5])), mine.predict(r.user.vocab[0], list(r.item.vocab[:5])))
    alike(r.fold_in({r.item.vocab[0]: 5}).recommend(3), mine.fold_in({r.item.vocab[0]: 5}).recommend(3))
    with pytest.raises(TypeError, match='Plain does not score a pair by the product'): fitted(lambda dls: Plain(len(dls.catalog.user), len(dls.catalog.item), .1)).save_recommender(tmp_path/'s')
    with pytest.raises(TypeError, match='EmbeddingLayers has no method biases'): fitted(neural_net((5,))).save_recommender(tmp_path/'s')
    pairs = simulate_ratings(30, 20, 200, seed=0)[['user', 'item']]
    choices = cf_learner(CFDataLoaders.from_df(pairs, valid_pct=.1, seed=0, device='cpu'), factor_count=2)
    with pytest.raises(TypeError, match='choices without ratings'): choices.save_recommender(tmp_path/'s')
    assert not (tmp_path/'s').exists()

@pytest.mark.parametrize('ids', [str, lambda o: uuid.UUID(int=o), lambda o: ('shop', o), lambda o: o - 30, lambda o: np.uint64(2**63 + o), lambda o: f'é{o}<b>\u202e', lambda o: b'%d' % o],
                         ids=['str', 'uuid', 'tuple', 'negative', 'uint64', 'marked', 'bytes'])
def test_ids_keep_their_type(tmp_path, ids):
    learn = make(ids=ids)
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    assert list(r.user.vocab) == list(learn.dls.catalog.user) and type(r.item.vocab[0]) is type(learn.dls.catalog.item[0])
    alike(r.recommend(list(r.user.vocab[:3]), 4), learn.recommend(list(r.user.vocab[:3]), 4))

@pytest.mark.parametrize('y_range', [(.5, 5.5), None])
@pytest.mark.parametrize('strategy', ['adaptive', 'seen', 'popular', 'random'])
def test_interviews_as_the_learner(tmp_path, y_range, strategy):
    learn = make(y_range)
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    a,b = r.interview(4, 3, strategy),Interview(learn, 4, 3, strategy)
    for said in ((5, None, 2), (1,), ()):
        alike(a.next_page().drop(columns='reply'), b.next_page().drop(columns='reply'))
        for iv in (a, b): iv.answer(dict(zip(iv.open_page, said)))
        alike(a.recommend(5), b.recommend(5)); alike(a.explain(a.recommend(1).item[0]), b.explain(a.recommend(1).item[0]))
        assert a.progress().to_numpy() == pytest.approx(b.progress().to_numpy(), abs=1e-4)
    assert a.next_page() is None and r.interview(state=a.to_json()).replies == a.replies

def test_an_interview_that_was_left_out_says_so(learn, tmp_path):
    r = Recommender.load(learn.save_recommender(tmp_path/'r', interview=False))
    with pytest.raises(ValueError, match='interview: this recommender was saved without it'): r.interview()
    r = Recommender.load(learn.save_recommender(tmp_path/'r'))
    with pytest.raises(ValueError, match="'entropy' needs the training ratings"): r.interview(strategy='entropy').next_page()

def public(cls):
    "Public methods and properties that fastcf gives to a class"
    ours = lambda f: (callable(f) and getattr(f, '__module__', '') or getattr(getattr(f, 'fget', None), '__module__', '')).startswith('fastcf')
    return {n for n in dir(cls) if not n.startswith('_') and ours(inspect.getattr_static(cls, n, None))}

def test_every_method_of_the_learner_is_there_or_says_why_not(saved):
    r,names = Recommender.load(saved),public(CFLearner)
    assert {'recommend', 'fold_in', 'predict', 'add_users', 'find_lr', 'posterior', 'similar_users'} <= names
    for n in sorted(names):
        if hasattr(type(r), n) or n in vars(r): continue
        with pytest.raises(AttributeError, match=rf'^{n}: not something a Recommender has.*needs training ratings'): getattr(r, n)
    with pytest.raises(AttributeError, match='^posterior: this recommender was saved without samples'): r.posterior

def test_every_argument_of_a_shared_method_is_taken(saved):
    "Whatever one can ask a learner's method for, one can ask the recommender's"
    r = Recommender.load(saved)
    names = lambda f: {k for k,p in inspect.signature(f).parameters.items() if p.kind != p.VAR_KEYWORD} - {'self'}
    taken = {n: names(getattr(Recommender, n)) | (names(Recommender.lists) if n == 'recommend' else set()) for n in public(CFLearner) & public(Recommender) if n != 'load' and callable(getattr(Recommender, n))}
    assert {n: sorted(names(getattr(CFLearner, n)) - k) for n,k in taken.items() if names(getattr(CFLearner, n)) - k} == {} and len(taken) >= 8
    assert names(Interview) - names(Recommender.interview) == {'learn'}
    with pytest.raises(ValueError, match="unknown: .*'popular' and 'nan' are for a learner alone"): r.recommend([10**6], unknown='popular')
    users = list(r.user.vocab[:2])
    assert len(r.recommend([*users, 10**6], 2, unknown='skip')) == 4 and len(r.recommend(k=1)) == int((r.user.counts > 0).sum())
    assert len(r.fold_in({r.item.vocab[0]: 5, 10**6: 3}, unknown='drop').values) == 1
    with pytest.raises(RatingsError, match='none of these ratings'): r.fold_in({10**6: 3}, unknown='drop')
    for n in ('fit', 'validate', 'get_preds', 'recomend'):
        with pytest.raises(AttributeError, match=rf'^{n}: .* there are .*recommend'): getattr(r, n)

def test_explains_by_leaving_ratings_out(saved):
    r = Recommender.load(saved)
    items = r.item.vocab[r.item.counts.nonzero()[:6, 0].numpy()].tolist()
    said,asked = dict(zip(items, (5, 1, 4, 2, 3))),items[5]
    now = r.fold_in(said).predict(items=asked)
    for row in r.fold_in(said).explain(asked).itertuples():
        without = r.fold_in({k: v for k,v in said.items() if k != row.item}).predict(items=asked)
        assert row.rating == said[row.item] and row.effect == pytest.approx(now - without, abs=1e-4)

@pytest.mark.parametrize('ask,error,words', [
    (lambda r: r.predict(10**6, 1), UnknownIdError, 'user: 1 unknown id: 1000000'), (lambda r: r.predict([1]), TypeError, 'items: missing'),
    (lambda r: r.predict([1, 2], [1, 2, 3]), ValueError, '2 users and 3 items'), (lambda r: r.predict(1, 1, interval=2), ValueError, 'interval: expected a share'),
    (lambda r: r.predict(1, 1, unknown='x'), ValueError, 'unknown'), (lambda r: r.recommend(1, 0), ValueError, 'k: expected'), (lambda r: r.fold_in({1: 9}), RatingsError, 'rating'),
    (lambda r: r.fold_in({1: float('nan')}), RatingsError, 'rating'), (lambda r: r.fold_in([1]), TypeError, 'ratings: expected a frame'), (lambda r: r.fold_in({'x': 1}), UnknownIdError, 'text'),
    (lambda r: r.predict(pd.DataFrame({'user': [1]})), ValueError, "no column 'item'")])
def test_questions_that_cannot_be_answered(saved, ask, error, words):
    r = Recommender.load(saved)
    with pytest.raises(error, match=words): ask(r)

def test_nothing_asked_nothing_answered(saved):
    r = Recommender.load(saved)
    assert len(r.recommend([])) == 0 and len(r.predict([], [])) == 0 and list(r.recommend([]))[:4] == ['user', 'rank', 'item', 'title']

def test_equal_scores_come_in_the_order_of_the_vocabulary(saved):
    r = Recommender.load(saved)
    r.item.vectors[:] = 0
    u = r.user.vocab[0]
    assert r.recommend(u, 5, exclude_seen=False, rank_by='rating').item.tolist() == r.item.vocab[r.item.counts.nonzero()[:5, 0].numpy()].tolist()

def test_needs_no_fastai(saved):
    code = f"import sys, fastcf.serve.interviews; from fastcf.serve.recommender import Recommender; r = Recommender.load({str(saved)!r}); r.recommend(list(r.user.vocab[:2])); r.fold_in({{r.item.vocab[0]: 5}}).explain(r.item.vocab[1]); r.interview(3).next_page(); r.predict(r.user.vocab[0], r.item.vocab[:3], interval=.9); print([m for m in sys.modules if m.startswith(('fastai', 'safetensors', 'matplotlib'))])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'

def test_threads_get_the_answers_of_one(saved):
    r,wrong = Recommender.load(saved),[]
    users,items = list(r.user.vocab[:20]),r.item.vocab[:5].tolist()
    ask = lambda r: [r.recommend(users, 5), r.predict(users[0], items, interval=.9), r.fold_in({items[0]: 5}).recommend(3)]
    alone = ask(Recommender.load(saved))
    def run():
        for _ in range(5):
            try: [alike(a, b) for a,b in zip(ask(r), alone)]
            except Exception as e: wrong.append(e)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert wrong == []

# --- what is in the folder

def test_other_libraries_read_the_tables(saved, learn):
    from safetensors.torch import load_file
    t = load_file(saved/'tables.safetensors')
    assert torch.equal(t['user.vectors'][:, :-1], learn.model.user_weight.weight.detach()) and torch.equal(t['item.vectors'][:, -1:], learn.model.item_bias.weight.detach())
    if shutil.which('sha256sum'): assert subprocess.run(['sha256sum', '-c', '--quiet', SUMS], cwd=saved, capture_output=True).returncode == 0

def test_no_rating_is_in_it(saved, learn):
    "Every rating of the learner is one value; it is not among the numbers of the folder"
    with Folder(saved) as f: names = json.loads(f.read('recommender.json'))
    assert set(p.name for p in saved.iterdir()) == {'README.md', 'SHA256SUMS', 'choice.safetensors', 'ids.json', 'interview.safetensors', 'recommender.json', 'tables.safetensors'}
    assert names['data']['rating_count'] == len(learn.dls.train_ds) and names['metrics']['rmse'] == pytest.approx(learn.recorder.values[-1][2])

def test_the_card_is_text_whatever_the_names_are(tmp_path):
    df = simulate_ratings(20, 20, 200, seed=0).rename(columns={'item': '<script>x</script> | `a`\n# b'})
    learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=.1, seed=0, device='cpu'), factor_count=2)
    card = (learn.save_recommender(tmp_path/'r', notes='=cmd() <img src=x>\x00\n## z', metrics={'<b>': 1.})/'README.md').read_text()
    assert '<' not in re.sub(r'\\.', '', card.split('## Use')[0]) and '\n# b' not in card and '\n## z' not in card and '\x00' not in card
    assert Recommender.load(tmp_path/'r').item.vocab.name == '<script>x</script> | `a`\n# b'

@pytest.mark.parametrize('o', [1, -2**70, 'a\ud800\u202e\x00', True, None, 1.5, -0.0, float('inf'), float('-inf'), (1, ('a', None)), [1, (2,)], {1, 2}, frozenset((3, 4)), b'\x00\xff', uuid.UUID(int=5),
                               pd.Timestamp('2026-01-02 03:04:05.678901234', tz='Europe/Berlin'), pd.Timedelta('1 days 00:00:00.000000005'), __import__('datetime').date(1, 2, 3), __import__('decimal').Decimal('1.10')], ids=repr)
def test_values_come_back(o):
    back = from_json(json.loads(json.dumps(to_json(o))))
    assert back == o and type(back) is type(o)

def test_missing_values_come_back():
    assert from_json(to_json(pd.NA)) is pd.NA and from_json(to_json(pd.NaT)) is pd.NaT and np.isnan(from_json(to_json(np.float32('nan'))))
    with pytest.raises(TypeError, match='slice values such as'): to_json(slice(1))

@pytest.mark.parametrize('s', [pd.Series([1, None], dtype='Int64'), pd.Series(['a', None]), pd.Series(['a', 'b'], dtype='category'), pd.Series(pd.to_datetime(['2020-01-01', None])), pd.Series(pd.to_datetime(['2020-01-01'], utc=True)),
                               pd.Series([1.5, np.nan], dtype='float32'), pd.Series([(1, 2), None, 'x'], dtype=object), pd.Series([True, False]), pd.Series([], dtype='int64'), pd.Series(pd.to_timedelta(['1 days', None]))], ids=lambda s: str(s.dtype))
def test_columns_keep_their_dtype(s): pd.testing.assert_series_equal(fmt.values_from_json(json.loads(json.dumps(fmt.values_to_json(s)))), s)

def test_what_cannot_be_written_is_named(tmp_path, learn):
    dls = CFDataLoaders.from_df(simulate_ratings(20, 20, 200, seed=0), valid_pct=.1, seed=0, device='cpu', items=pd.DataFrame(dict(item=range(20), poster=[object()] * 20)))
    with pytest.raises(TypeError, match='object values such as'): cf_learner(dls, factor_count=2).save_recommender(tmp_path/'r')
    bad = make()
    bad.model.item_weight.weight.data[3, 1] = float('nan')
    with pytest.raises(ValueError, match='item_weight.weight holds numbers that are not finite'): bad.save_recommender(tmp_path/'r')
    assert list(tmp_path.iterdir()) == []

def test_a_folder_of_something_else_is_not_replaced(tmp_path, learn):
    (tmp_path/'thesis').mkdir(); (tmp_path/'thesis'/'chapter.tex').write_text('years of work')
    with pytest.raises(RecommenderFileError, match="holds other things, such as 'chapter.tex'"): learn.save_recommender(tmp_path/'thesis')
    (tmp_path/'file').write_text('x')
    with pytest.raises(RecommenderFileError, match='this is a file'): learn.save_recommender(tmp_path/'file')
    (tmp_path/'empty').mkdir()
    learn.save_recommender(tmp_path/'empty'); learn.save_recommender(tmp_path/'empty'); learn.save_recommender(tmp_path/'new/deep')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'file', 'new', 'thesis'] and Recommender.load(tmp_path/'empty')

def test_a_link_to_a_folder_stays_a_link(tmp_path, learn):
    learn.save_recommender(tmp_path/'v1')
    (tmp_path/'current').symlink_to('v1')
    learn.save_recommender(tmp_path/'current', notes='again')
    assert (tmp_path/'current').is_symlink() and 'again' in (tmp_path/'v1/README.md').read_text() and Recommender.load(tmp_path/'current')

def test_a_disk_that_is_full_leaves_what_was_there(folder, learn, monkeypatch):
    def full(*args): raise OSError(28, 'No space left on device')
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(fmt.os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'): learn.save_recommender(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and list(folder.parent.iterdir()) == [folder]

# --- what is refused

def edit_json(name, change):
    def _inner(folder):
        d = json.loads((folder/name).read_text())
        d = change(d) or d
        (folder/name).write_text(json.dumps(d)); sum_again(folder)
    return _inner

def edit_tensors(change, name='tables.safetensors'):
    def _inner(folder):
        from safetensors.torch import load_file, save_file
        t = {k: v.clone() for k,v in load_file(folder/name).items()}
        change(t)
        save_file(t, folder/name); sum_again(folder)
    return _inner

def edit_header(change):
    def _inner(folder):
        data = (folder/'tables.safetensors').read_bytes()
        n = int.from_bytes(data[:8], 'little')
        head = json.loads(data[8:8+n]); change(head)
        head = json.dumps(head).encode()
        (folder/'tables.safetensors').write_bytes(len(head).to_bytes(8, 'little') + head + data[8+n:]); sum_again(folder)
    return _inner

def run(*steps): return lambda folder: [s(folder) for s in steps]
def put(name, data): return lambda folder: (folder/name).write_bytes(data)

REFUSED = {
    'no folder': (lambda f: shutil.rmtree(f), 'there is no such folder'), 'no sums': (lambda f: (f/SUMS).unlink(), 'SHA256SUMS: missing'), 'empty sums': (put(SUMS, b''), 'SHA256SUMS: not a list'),
    'cut sums': (lambda f: (f/SUMS).write_bytes((f/SUMS).read_bytes()[:-1]), 'SHA256SUMS: not a list'), 'long sums': (put(SUMS, b'0' * 10**6), 'SHA256SUMS: 1,000,000 bytes'),
    'a path in the sums': (lambda f: (f/SUMS).write_text((f/SUMS).read_text() + '0' * 64 + '  ../../etc/passwd\n'), 'SHA256SUMS: not a list'),
    'missing': (lambda f: (f/'ids.json').unlink(), 'ids.json: missing'), 'pickle': (put('model.pkl', b'\x80\x04'), 'model.pkl: not one of the files'), 'hidden': (put('.x', b''), '.x: not one of'),
    'odd name': (put('a\nb.json', b''), r'a\\nb.json: not one of'),
    'cut': (lambda f: (f/'ids.json').write_bytes((f/'ids.json').read_bytes()[:-1]), 'ids.json: its SHA-256'), 'empty': (run(put('tables.safetensors', b''), sum_again), 'tables.safetensors: not a safetensors file'),
    'swapped': (lambda f: [os.rename(f/a, f/b) for a,b in (('ids.json', 'x'), ('tables.safetensors', 'ids.json'), ('x', 'tables.safetensors'))], 'its SHA-256'),
    'link': (lambda f: [os.rename(f/'ids.json', f.parent/'ids.json'), (f/'ids.json').symlink_to(f.parent/'ids.json')], 'ids.json: cannot be opened .a link is not followed'),
    'folder': (lambda f: [(f/'ids.json').unlink(), (f/'ids.json').mkdir()], 'ids.json: not a plain file'), 'pipe': (lambda f: [(f/'ids.json').unlink(), os.mkfifo(f/'ids.json')], 'ids.json: not a plain file'),
    'sums are a link': (lambda f: [os.rename(f/SUMS, f.parent/'s'), (f/SUMS).symlink_to(f.parent/'s')], 'SHA256SUMS: cannot be opened'),
    'another version': (edit_json('recommender.json', lambda d: d.update(version=9)), "version 9 of the format, this fastcf knows 2.*Install"), 'version as text': (edit_json('recommender.json', lambda d: d.update(version='1')), "version '1'"),
    'another format': (edit_json('recommender.json', lambda d: d.update(format='x')), "'format' is 'x'"), 'a list': (edit_json('recommender.json', lambda d: [1]), 'an object was expected'),
    'key missing': (edit_json('recommender.json', lambda d: d.pop('y_range') and None), "'y_range' is missing"), 'key more': (edit_json('recommender.json', lambda d: d.update(code='x')), "'code' was not expected"),
    'part more': (edit_json('recommender.json', lambda d: d.update(parts=[*d['parts'], 'extra.safetensors'])), 'it names the parts'), 'file more': (run(put('extra.json', b'{}'), sum_again), 'it names the parts'),
    'huge count': (edit_json('recommender.json', lambda d: d['user'].update(count=10**12)), 'not as it was written|expected'), 'wrong count': (edit_json('recommender.json', lambda d: d['user'].update(count=39)), 'expected'),
    'huge factors': (edit_json('recommender.json', lambda d: d.update(factor_count=10**9)), 'expected float32'), 'negative noise': (edit_json('recommender.json', lambda d: d['item'].update(noise=-1)), "'item' is not as"),
    'noise as text': (edit_json('recommender.json', lambda d: d['item'].update(noise='1')), "'item' is not as"), 'limits': (edit_json('recommender.json', lambda d: d.update(limits=[5, 1])), "'limits'"),
    'NaN': (lambda f: [(f/'recommender.json').write_text((f/'recommender.json').read_text().replace('"factor_count": 4,\n "seen', '"factor_count": NaN,\n "seen')), sum_again(f)], 'NaN is not JSON'),
    'a key twice': (lambda f: [(f/'recommender.json').write_text((f/'recommender.json').read_text().replace('"version": 2', '"version": 2, "version": 2')), sum_again(f)], 'a key occurs twice'),
    'deep': (run(put('ids.json', b'[' * 10**5), sum_again), 'ids.json: not JSON'), 'not UTF-8': (run(put('ids.json', b'\xff'), sum_again), 'ids.json: not text in UTF-8'),
    'ids twice': (edit_json('ids.json', lambda d: d['user']['values'].__setitem__(1, d['user']['values'][0])), "'user' are not the"), 'ids out of order': (edit_json('ids.json', lambda d: d['user']['values'].reverse()), "'user' are not the"),
    'a type unknown': (edit_json('ids.json', lambda d: d['item'].update(dtype='complex128')), "'item' cannot be read"), 'an object of ids': (edit_json('ids.json', lambda d: d['item']['values'].__setitem__(0, {'__reduce__': 'os.system'})), "'item' cannot be read"),
    'metadata': (edit_json('ids.json', lambda d: d['items'].update(columns=7)), 'metadata of items cannot be read'), 'metadata twice': (edit_json('ids.json', lambda d: d['items']['index']['values'].__setitem__(1, d['items']['index']['values'][0])), 'an id twice'),
    'tensor missing': (edit_tensors(lambda t: t.pop('user.counts')), "'user.counts' is missing"), 'tensor more': (edit_tensors(lambda t: t.update(x=torch.ones(1))), "'x' was not expected"),
    'shape': (edit_tensors(lambda t: t.update({'item.vectors': t['item.vectors'][:-1].clone()})), "'item.vectors' is float32"), 'dtype': (edit_tensors(lambda t: t.update({'seen.items': t['seen.items'].long()})), "'seen.items' is int64"),
    'half': (edit_tensors(lambda t: t.update({'item.vectors': t['item.vectors'].half()})), 'not a safetensors file'),
    'not finite': (edit_tensors(lambda t: t['user.vectors'].__setitem__((0, 0), float('nan'))), "'user.vectors' holds numbers that are not finite"), 'precision': (edit_tensors(lambda t: t['user.prior_precision'].neg_()), "is not a precision"),
    'offsets': (edit_tensors(lambda t: t['seen.offsets'].__setitem__(3, 10**9)), "'seen.offsets' do not rise"), 'offsets below': (edit_tensors(lambda t: t['seen.offsets'].__setitem__(0, -5)), "'seen.offsets' do not rise"),
    'items beyond': (edit_tensors(lambda t: t['seen.items'].__setitem__(0, 10**6)), "point beyond the items"), 'items below': (edit_tensors(lambda t: t['seen.items'].__setitem__(0, -1)), "point beyond the items"), 'counts': (edit_tensors(lambda t: t['item.counts'].add_(1)), 'the counts are not those'),
    'habits': (edit_tensors(lambda t: t.update({'habits_mean': torch.zeros(3)}), 'interview.safetensors'), 'do not fit one another'), 'an audience': (edit_tensors(lambda t: t['audiences'].__setitem__((0, 0), float('inf')), 'interview.safetensors'), "'audiences' holds numbers"),
    'a residual': (edit_tensors(lambda t: t['residual'].neg_(), 'interview.safetensors'), 'is not positive'), 'choices': (edit_tensors(lambda t: t.update(users=t['users'][:, :2].clone()), 'choice.safetensors'), 'of different lengths'),
    'a choice model that is not there': (edit_json('recommender.json', lambda d: d.update(choice=None)), "'choice' is not as"), 'curve': (edit_json('recommender.json', lambda d: d['choice'].update(curve=[1])), "'choice' is not as"),
    'huge shape': (edit_header(lambda h: h['user.vectors'].update(shape=[10**12, 10**12])), 'not a safetensors file'), 'negative shape': (edit_header(lambda h: h['user.vectors'].update(shape=[-1, -200])), 'not a safetensors file'),
    'beyond the file': (edit_header(lambda h: h['user.vectors'].update(data_offsets=[0, 10**15])), 'not a safetensors file'), 'overlap': (edit_header(lambda h: h.update(x=h['user.vectors'])), 'not a safetensors file'),
    'long header': (lambda f: [(f/'tables.safetensors').write_bytes((2**62).to_bytes(8, 'little') + b'{}'), sum_again(f)], 'its header is longer'), 'a pickle by another name': (run(put('tables.safetensors', b'\x80\x04\x95' + b'.' * 100), sum_again), 'not a safetensors file')}

@pytest.mark.parametrize('damage,words', REFUSED.values(), ids=REFUSED)
def test_a_damaged_folder_is_refused_by_name(folder, damage, words):
    damage(folder)
    with pytest.raises(RecommenderFileError, match=words): Recommender.load(folder)

@pytest.mark.parametrize('name', ['README.md', '.gitattributes'])
def test_the_card_may_be_edited(folder, name):
    (folder/name).write_text('my own words')
    assert Recommender.load(folder)

# --- mutations

def mutate(folder, rng):
    "Damage a folder at random, as a bad disk, a bad copy or a bad person would"
    names = sorted(p.name for p in folder.iterdir() if p.name != 'README.md')
    p,kind = folder/rng.choice(names),rng.choice(['flip', 'cut', 'swap', 'insert', 'zero', 'double', 'json', 'header', 'drop', 'link'])
    data = bytearray(p.read_bytes())
    at = rng.randrange(len(data))
    if kind == 'flip':
        for _ in range(rng.choice([1, 1, 5, 50])): data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 'cut': data = data[:at]
    elif kind == 'insert': data[at:at] = rng.randbytes(rng.choice([1, 8, 1000]))
    elif kind == 'zero': data[at:at+64] = bytes(len(data[at:at+64]))
    elif kind == 'double': data = data + data
    elif kind == 'swap': q = folder/rng.choice(names); other = q.read_bytes(); q.write_bytes(data); data = bytearray(other)
    elif kind == 'drop': p.unlink(); return kind
    elif kind == 'link': p.unlink(); p.symlink_to(rng.choice(['/etc/passwd', '/dev/zero', '.', 'nowhere'])); return kind
    elif kind == 'header': data = bytearray((folder/'tables.safetensors').read_bytes()); p = folder/'tables.safetensors'; data[rng.randrange(1200)] = rng.choice(b'0123456789[]{}",:-e')
    else:
        p = folder/rng.choice(['recommender.json', 'ids.json'])
        d = json.loads(p.read_text())
        at = d
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            k = rng.choice(list(keys))
            if not isinstance(at[k], (dict, list)) or not at[k] or rng.random() < .2: break
            at = at[k]
        at[k] = rng.choice([None, -1, 0, 10**30, 1e300, '', 'x', True, [], {}, [[]], {'UUID': 'x'}, {'tuple': 3}, {'missing': 'NA'}, 2.5, 'ab' * 9])
        data = json.dumps(d).encode()
    p.write_bytes(bytes(data))
    return kind

LINUX = pytest.mark.skipif(sys.platform != 'linux', reason='forks, and reads /proc')

def in_a_child(f, *args):
    "What a function returns in a child process, its seconds, and by how many MB it was larger than this process at its largest"
    import resource
    read,write = os.pipe()
    if not (pid := os.fork()):
        try:
            before,start = resident(),time.perf_counter()
            try: res = f(*args)
            except BaseException as e: res = repr(e)[:500]
            seconds = time.perf_counter() - start
            os.write(write, json.dumps([res, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6]).encode())
        finally: os._exit(0)
    os.close(write)
    with open(read, 'rb') as f: said = f.read()
    os.waitpid(pid, 0)
    return json.loads(said)

def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')

def try_mutations(saved, tmp_path, n, seed):
    "Mutate, with and without sums that fit, and load; how many loaded"
    rng,loaded,costs = random.Random(seed),{True: 0, False: 0},[]
    good = Recommender.load(saved)
    users = list(good.user.vocab)
    expected = good.recommend(users, 5)
    def load_and_ask(folder, fixed):
        try: r = Recommender.load(folder)
        except RecommenderFileError as e: return 'refused' if str(tmp_path) in str(e) else f'without a path: {e}'
        if not fixed: alike(r.recommend(users, 5), expected)
        else: # whoever writes the sums anew can say what he likes, but it is answered with numbers
            assert r.recommend(list(r.user.vocab), 5).prediction.notna().all() and repr(r)
        return 'loaded'
    for j in range(n):
        folder = Path(shutil.copytree(saved, tmp_path/f'm{j}'))
        kind,fixed = mutate(folder, rng),rng.random() < .5
        if fixed and kind not in ('drop', 'link'): sum_again(folder)
        result,seconds,megabytes = in_a_child(load_and_ask, folder, fixed)
        assert result in ('refused', 'loaded'), f'{kind}, sums {"anew" if fixed else "as they were"}: {result}'
        if result == 'loaded': loaded[fixed] += 1
        costs.append((seconds, megabytes))
        shutil.rmtree(folder)
    return loaded,np.array(costs)

COUNT = int(os.environ.get('FASTCF_COUNT', 0)) # of mutations and kills in the slow tests, where there is time for more

@LINUX
def test_mutated_folders_load_the_same_or_are_refused(saved, tmp_path):
    loaded,_ = try_mutations(saved, tmp_path, 60, 0)
    assert loaded[True] > 0 # some numbers may be altered by whoever also alters the sums

@LINUX
@pytest.mark.slow
@pytest.mark.parametrize('which', ['saved', 'rich_saved'])
def test_many_mutated_folders(request, which, tmp_path):
    _,costs = try_mutations(request.getfixturevalue(which), tmp_path, COUNT or 100, 1)
    seconds,megabytes = costs.max(0)
    print(f'\n{which}, {len(costs):,} mutations: {seconds:.2f} s and {megabytes:.0f} MB at most')
    assert megabytes < 200

@LINUX
@pytest.mark.parametrize('name,value', [('count', 10**12), ('factor_count', 10**9), ('seen_count', 2**39), ('limits', [10**310, 10**311]), ('y_range', [0, 10**400])])
def test_what_is_claimed_costs_nothing(folder, name, value):
    edit_json('recommender.json', lambda d: (d['user'] if name == 'count' else d).update({name: value}))(folder)
    def load():
        try: Recommender.load(folder)
        except RecommenderFileError: return 'refused'
    result,_,megabytes = in_a_child(load)
    assert result == 'refused' and megabytes < 200

# --- killed

def versions(learn):
    "Two sets of files to save in turn"
    kept = []
    for note in ('old', 'new'):
        caught = {}
        with pytest.MonkeyPatch.context() as m:
            m.setattr('fastcf.serve.files.write_folder', lambda folder, files: caught.update(files))
            learn.save_recommender('x', notes=note)
        caught['recommender.json'] = caught['recommender.json'].replace('"settings": {', f'"settings": {{"note": "{note}",')
        kept.append(caught)
    return kept

def kill_while_saving(learn, tmp_path, n, seed):
    "Save in turn in another process, kill it, load: which of both was there"
    files,rng,found,target = versions(learn),random.Random(seed),[],tmp_path/'films'
    write_folder(target, files[0])
    start = time.perf_counter()
    for f in (files[1], files[0]): write_folder(target, f)
    both = time.perf_counter() - start # so that a kill falls into either, however busy the machine is
    for _ in range(n):
        if not (pid := os.fork()):
            try:
                while True:
                    for f in files: write_folder(target, f)
            finally: os._exit(1)
        time.sleep(rng.random() * 2 * both)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        r = Recommender.load(target)
        found.append(r.info['settings']['note'])
        assert len(r.recommend(list(r.user.vocab[:2]), 3)) == 6
    write_folder(target, files[1])
    assert Recommender.load(target).info['settings']['note'] == 'new'
    return found

@LINUX
@pytest.mark.parametrize('in_one_step', [True, False])
def test_killed_while_saving(learn, tmp_path, monkeypatch, in_one_step):
    if not in_one_step: monkeypatch.setattr(fmt, '_exchange', lambda a, b: False)
    assert set(kill_while_saving(learn, tmp_path, 25, 0)) <= {'old', 'new'}

@LINUX
@pytest.mark.slow
@pytest.mark.parametrize('in_one_step', [True, False])
def test_killed_while_saving_often(learn, tmp_path, monkeypatch, in_one_step):
    if not in_one_step: monkeypatch.setattr(fmt, '_exchange', lambda a, b: False)
    assert set(kill_while_saving(learn, tmp_path, COUNT or 60, 1)) == {'old', 'new'}

def test_killed_between_two_renames_what_was_there_is_found(folder, learn):
    os.rename(folder, folder.parent/f'.{folder.name}.old')
    assert Recommender.load(folder)
    learn.save_recommender(folder)
    assert os.listdir(folder.parent) == [folder.name]

def test_loading_while_it_is_replaced(learn, tmp_path):
    files,stop,wrong = versions(learn),threading.Event(),[]
    write_folder(tmp_path/'films', files[0])
    def save():
        while not stop.is_set():
            for f in files: write_folder(tmp_path/'films', f)
    t = threading.Thread(target=save); t.start()
    try:
        for _ in range(60): assert Recommender.load(tmp_path/'films').info['settings']['note'] in ('old', 'new')
    finally: stop.set(); t.join()

def test_what_a_killed_process_left_is_cleared_after_a_day(learn, tmp_path):
    old,young,other = (tmp_path/n for n in ('.films.aa.part', '.films.bb.part', '.other.aa.part'))
    for p in (old, young, other): p.mkdir()
    for p in (old, other): os.utime(p, (0, 0))
    learn.save_recommender(tmp_path/'films')
    assert sorted(os.listdir(tmp_path)) == ['.films.bb.part', '.other.aa.part', 'films']

# --- where a folder cannot be opened as a file, as on Windows

@pytest.fixture
def by_path(monkeypatch):
    monkeypatch.setattr(fmt, 'BY_DESCRIPTOR', False)
    monkeypatch.setattr(fmt, '_exchange', lambda a, b: False)
    monkeypatch.setattr(shutil, '_use_fd_functions', False)
    plain = os.open
    def no_folders(path, flags, *args, **kwargs):
        if kwargs.get('dir_fd') is not None or os.path.isdir(path): raise PermissionError(13, 'a folder')
        return plain(path, flags, *args, **kwargs)
    monkeypatch.setattr(os, 'open', no_folders)

def test_works_by_paths_alone(by_path, learn, tmp_path):
    folder = learn.save_recommender(tmp_path/'r')
    learn.save_recommender(folder)
    assert Recommender.load(folder).user.vocab == learn.dls.catalog.user and os.listdir(tmp_path) == ['r']
    with open(folder/'ids.json', 'a') as f: f.write(' ')
    with pytest.raises(RecommenderFileError, match='ids.json: its SHA-256'): Recommender.load(folder)
    (folder/'ids.json').unlink(); (folder/'ids.json').symlink_to('/etc/passwd')
    with pytest.raises(RecommenderFileError, match='a link is not followed'): Recommender.load(folder)
