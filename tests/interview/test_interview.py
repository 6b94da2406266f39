"Interviews: the choice of questions against a plain computation, the log, and newcomers of a known model"
import json
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from fastcf.cold.proxies import ProxyQuestions, answer_proxies
from fastcf.core import UnknownIdError
from fastcf.data.sources import simulate_ratings
from fastcf.interview.interview import Interview
from fastcf.interview.simulate import _ndcg, plot_interviews, simulate_interview
from fastcf.interview.questions import STRATEGIES, ExposureModel, Interviewer, adaptive_page, after_asking, expected_gain, item_questions, rating_entropy, variance_reduction
import fastcf.learn.predict, fastcf.rank.topn
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders

def trained(df, items=None, y_range=(.5, 5.5), k=5):
    dls = CFDataLoaders.from_df(df, valid_pct=.05, seed=0, items=items, device='cpu')
    learn = cf_learner(dls, factor_count=k, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, 2e-2)
    return learn

@pytest.fixture(scope='module')
def world():
    df = simulate_ratings(300, 120, 9000, seed=1)
    strangers = df.user >= 240
    theirs = df[strangers].reset_index(drop=True)
    ask = np.random.default_rng(0).random(len(theirs)) < .5
    items = pd.DataFrame(dict(item=range(120), title=[f'<b>Film {i}</b>' for i in range(120)], year=1990, genre=[['abc'[i % 3], 'de'[i % 2]] for i in range(120)]))
    teach = Interviewer(trained(df[~strangers], items))
    return dict(teach=teach, answers=theirs[ask], test=theirs[~ask])

def beliefs(world, n=3): return world['teach'].beliefs([0, 0, 1], [3, 5, 7], [4, np.nan, 2], n)

# --- what is believed

def test_seen_model_is_the_plain_gaussian(world):
    s = world['teach'].exposure
    g = s.posterior([0, 0, 0], [1, 2, 3], [True, False, True], 1)
    like = s.likelihood
    a,y = s.audiences[[1, 2, 3]].double(),torch.tensor([1., 0, 1]).double() - like.offsets[[1, 2, 3]].double()
    p = s.prior.precision.double() + a.T @ torch.diag(1 / like.noise[[1, 2, 3]].double()) @ a
    m = torch.linalg.solve(p, s.prior.precision.double() @ s.prior.mean.double() + a.T @ (y / like.noise[[1, 2, 3]].double()))
    torch.testing.assert_close(g.mean[0].double(), m, atol=1e-3, rtol=1e-3)
    probs = s.probabilities(g)
    assert probs.shape == (1, 120) and (probs > 0).all() and (probs < 1).all()

def test_chances_without_replies_are_popularity(world):
    s = world['teach'].exposure
    none = s.posterior([], [], [], 1)
    torch.testing.assert_close(s.probabilities(none)[0], s.popularity.clamp(.002, .998), atol=1e-4, rtol=0)

def test_seed_and_random_state(world):
    before = torch.random.get_rng_state()
    a,b = (ExposureModel(world['teach'].learn, seed=3) for _ in range(2))
    assert torch.equal(a.audiences, b.audiences) and torch.equal(before, torch.random.get_rng_state())

def test_rows_do_not_touch_one_another(world):
    t,b = world['teach'],beliefs(world)
    alone = t.beliefs([0], [7], [2], 1)
    torch.testing.assert_close(b.taste.mean[1], alone.taste.mean[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(b.seen[2], t.beliefs([], [], [], 1).seen[0], atol=1e-5, rtol=1e-4)

def test_not_seen_is_evidence(world):
    t = world['teach']
    a,b = t.beliefs([], [], [], 1),t.beliefs([0, 0], [3, 5], [np.nan, np.nan], 1)
    moment = t.base.likelihood.second_moment
    assert (b.taste.cov()[0] * moment).sum() < (a.taste.cov()[0] * moment).sum() and not torch.equal(a.taste.mean, b.taste.mean)

# --- what is asked

def test_falls_are_those_of_the_covariance(world):
    "Against the covariance computed with and without the question"
    t,b = world['teach'],beliefs(world)
    gain,q = expected_gain(t, b),item_questions(t, b, torch.tensor([[10, 20]] * 3))
    falls = variance_reduction(gain, q)
    for r in range(3):
        for j,item in enumerate((10, 20)):
            v = t.base.likelihood.vectors[item].double()
            c = b.taste.cov()[r].double()
            after = torch.linalg.inv(torch.linalg.inv(c) + v[:, None] * v / q.noise[r, j].double())
            rated = float(((c - after) * gain.moment[r].double()).sum()) * float(b.seen[r, item])
            a = t.exposure.audiences[item].double()
            hc = b.habits.cov()[r].double()
            habits = torch.linalg.inv(torch.linalg.inv(hc) + a[:, None] * a / t.exposure.likelihood.noise[item].double())
            g = gain.habit_effect[r].double()
            replied = float(((g @ (hc - habits) @ g.T) * gain.moment[r].double()).sum())
            assert falls[r, j].item() == pytest.approx(rated + replied, rel=2e-3)

def test_a_page_is_a_set(world):
    "Its first question teaches most, each later one most beside those before, and none repeats"
    t,b = world['teach'],beliefs(world)
    asked = torch.zeros(3, 120, dtype=torch.bool)
    asked[0, [3, 5]] = True
    picks,falls = adaptive_page(t, b, asked, 10)
    assert all(len(set(p)) == 10 for p in picks.tolist()) and not {3, 5} & set(picks[0].tolist())
    gain,questions = expected_gain(t, b),item_questions(t, b, torch.arange(120).expand(3, -1))
    for q in range(10):
        f = variance_reduction(gain, questions).masked_fill(asked, -1)
        assert torch.allclose(f.max(1).values, falls[:, q], rtol=1e-3)
        gain = after_asking(gain, questions, picks[:, q])
        asked[torch.arange(3), picks[:, q]] = True

@pytest.mark.parametrize('strategy', STRATEGIES)
def test_no_question_twice_until_none_is_left(world, strategy):
    iv,seen = Interview(world['teach'], page_size=50, pages=9, strategy=strategy),[]
    while (page := iv.next_page()) is not None: seen += list(page.item); iv.skip()
    rated = int((world['teach'].counts > 0).sum())
    assert len(seen) == len(set(seen)) == rated

def test_entropy_is_the_plain_one(world):
    learn = world['teach'].learn
    t,h = learn.dls.train_ds,rating_entropy(learn)
    r = t.ratings[t.items == 5].numpy()
    p = pd.Series(r).value_counts(normalize=True)
    assert h[5].item() == pytest.approx(-(p * np.log(p)).sum(), rel=1e-4)

# --- the interview

def test_flow_undo_and_skip(world):
    iv = Interview(world['teach'], page_size=5, pages=2)
    a = iv.next_page()
    assert list(a.columns) == ['item', 'title', 'year', 'seen', 'reply'] and a.title[0].startswith('<b>') and a.equals(iv.next_page())
    iv.answer({a.item[0]: 5, a.item[1]: None})
    b = iv.next_page()
    assert not set(a.item) & set(b.item) and iv.page_count == 1
    iv.undo()
    assert iv.replies == {} and a.equals(iv.next_page())
    iv.skip(); iv.next_page(); iv.answer({}); assert iv.next_page() is None and iv.page_count == 2
    iv.undo().undo()
    assert a.equals(iv.next_page())

def test_later_replies_count_and_seen_is_not_recommended(world):
    iv = Interview(world['teach'])
    iv.answer({1: 5, 2: None, 3: 1}).answer({2: 4, 1: None})
    assert iv.replies == {1: None, 2: 4., 3: 1.}
    rec = iv.recommend(200)
    assert not {2, 3} & set(rec.item) and 1 in set(rec.item) and rec['rank'].tolist() == list(range(1, len(rec) + 1)) and (rec['std'] > 0).all()

def test_lists_are_by_value_or_by_either_part_of_it(world):
    iv = Interview(world['teach']).answer({1: 5, 2: None, 3: 1})
    lists = {o: iv.recommend(200, rank_by=o) for o in ('value', 'rating', 'chance')}
    pd.testing.assert_frame_equal(lists['value'], iv.recommend(200, rank_by=None)) # as everywhere else
    for by,column in (('value', 'value'), ('rating', 'prediction'), ('chance', 'chance')):
        shown = lists[by][column].to_numpy()
        assert (np.diff(shown) <= 2e-5).all() and set(lists[by].item) == set(lists['value'].item)
        assert lists[by].sort_values('item').drop(columns='rank').reset_index(drop=True).equals(lists['value'].sort_values('item').drop(columns='rank').reset_index(drop=True))
    low,high = world['teach'].rating_range
    bottom,r = low - (high - low) / 8,lists['value']
    np.testing.assert_allclose(r.value, r.chance * (r.prediction.clip(low, high) - bottom) / (high - bottom), rtol=1e-5)
    assert not (r.chance.is_monotonic_decreasing or r.prediction.is_monotonic_decreasing)
    some = iv.recommend(5, interval=.8)
    assert list(some.columns[-3:]) == ['std', 'low', 'high'] and (some.low <= some.prediction).all() and (some.prediction <= some.high).all()
    for bad,words in ((dict(rank_by='stars'), 'rank_by: expected'), (dict(interval=9), 'interval: expected'), (dict(k=0), 'k: expected')):
        with pytest.raises(ValueError, match=words): iv.recommend(**bad)

def test_explanation_is_what_taking_it_back_does(world):
    iv = Interview(world['teach']).answer({1: 5, 2: None, 3: 1, 4: 3})
    e = iv.explain(9).set_index('item')
    at = lambda o: o.beliefs().taste.expected()[0, 9].item()
    for i in (1, 2, 3, 4):
        less = Interview(world['teach']).answer({k: v for k,v in iv.replies.items() if k != i})
        assert e.effect[i] == pytest.approx(at(iv) - at(less), abs=2e-3)

def test_progress_and_an_early_end(world):
    iv = Interview(world['teach'], page_size=5)
    p = iv.progress()
    assert p.questions == 0 and p.expected_rmse > p.expected_rmse_next_page > world['teach'].base.likelihood.noise**.5
    page = iv.next_page()
    iv.answer({i: 3 for i in page.item})
    assert iv.progress().expected_rmse < p.expected_rmse and iv.progress().ratings == 5
    lazy = Interview(world['teach'], page_size=5, pages=9, min_gain=10)
    lazy.next_page(); lazy.answer({})
    assert lazy.next_page() is None

def test_json(world):
    iv = Interview(world['teach'], page_size=4, strategy='seen')
    iv.answer({i: 3 for i in iv.next_page().item[:2]}); iv.next_page()
    back = Interview.from_json(world['teach'], iv.to_json())
    assert back.to_json() == iv.to_json() and back.next_page().equals(iv.next_page()) and back.replies == iv.replies
    assert back.recommend().equals(iv.recommend())
    broken = json.loads(iv.to_json())
    broken['log'][0][1][0] = 'gone'
    with pytest.raises(UnknownIdError): Interview.from_json(world['teach'], json.dumps(broken))

@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.just('page'), st.just('skip'), st.just('undo'), st.just('part'), st.just('unsay'), st.dictionaries(st.integers(0, 119), st.one_of(st.none(), st.integers(1, 5)), max_size=6)), max_size=10))
def test_any_order_of_events(world, events):
    iv = Interview(world['teach'], page_size=6, pages=3)
    for e in events:
        try:
            if e == 'page': iv.next_page()
            elif e == 'skip': iv.skip()
            elif e == 'part': iv.answer({7: 2, 9: None}, done=False)
            elif e == 'unsay': iv.skip([7])
            elif e == 'undo': iv.undo()
            else: iv.answer(e)
        except ValueError as err: assert 'no open page' in str(err) or 'nothing was answered' in str(err)
    assert iv.page_count <= 3 and np.isfinite(iv.recommend(5).prediction).all()
    assert Interview.from_json(world['teach'], iv.to_json()).log == iv.log

def test_errors(world):
    t = world['teach']
    for kw,match in ((dict(page_size=0), 'page_size: expected a whole number'), (dict(pages=1.5), 'pages: expected'), (dict(strategy='x'), "strategy: expected 'adaptive'")):
        with pytest.raises(ValueError, match=match): Interview(t, **kw)
    iv = Interview(t)
    with pytest.raises(UnknownIdError, match="item: 1 unknown id: 999"): iv.answer({999: 3})
    for bad in (9, float('nan'), 'good'):
        with pytest.raises(ValueError, match='replies: 3 has'): iv.answer({3: bad})
    with pytest.raises(ValueError, match='k: expected a whole number above 0, got 0'): iv.recommend(0)
    with pytest.raises(TypeError, match='expected a dict'): iv.answer([3])
    assert iv.replies == {}

# --- simulation

def test_simulation(world):
    t = world['teach']
    before = world['answers'].copy(deep=True)
    a,b = (simulate_interview(t, world['answers'], world['test'], ('adaptive', 'random'), 10, 3, seed=2) for _ in range(2))
    assert a.equals(b) and world['answers'].equals(before)
    assert list(a.columns) == ['strategy', 'questions', 'answers', 'rmse', 'ndcg'] and len(a) == 9
    last = a[a.questions == 30].set_index('strategy')
    start,everything = a.rmse[0],a.rmse.iloc[-1]
    assert everything < last.rmse['adaptive'] < start and last.answers['adaptive'] > last.answers['random'] and last.rmse['adaptive'] < last.rmse['random']
    assert a.ndcg.between(0, 1).all()
    for value in ('rmse', 'ndcg', 'answers'): assert plot_interviews(a, value).get_xlabel() == 'questions asked'

def test_ndcg_by_hand():
    users,ratings = np.array([0, 0, 0, 1]),np.array([5., 3, 1, 2])
    assert _ndcg(users, ratings, ratings) == pytest.approx(1)
    got = (1 + 7 / np.log2(3) + 31 / 2) / (31 + 7 / np.log2(3) + 1 / 2)
    assert _ndcg(users, -ratings, ratings) == pytest.approx((got + 1) / 2)

def test_a_learner_without_a_sigmoid():
    df = simulate_ratings(60, 50, 1200, seed=2)
    iv = Interview(trained(df, y_range=None, k=2), page_size=5)
    iv.answer({i: 4 for i in iv.next_page().item})
    assert np.isfinite(iv.recommend(3).prediction).all() and np.isfinite(iv.progress().expected_rmse)

def test_metadata_to_start_from():
    "Users of two towns who see different halves of the items: the town is enough to know which"
    rng = np.random.default_rng(0)
    u,i = np.nonzero(rng.random((200, 60)) < np.where((np.arange(200)[:, None] % 2) == (np.arange(60) % 2), .5, .05))
    df,users = pd.DataFrame(dict(user=u, item=i, rating=rng.integers(1, 6, len(u)))),pd.DataFrame(dict(user=range(200), town=['even', 'odd'] * 100))
    warm = df[df.user < 160]
    dls = CFDataLoaders.from_df(warm, valid_pct=.05, seed=0, users=users, device='cpu')
    learn = cf_learner(dls, factor_count=2, y_range=(.5, 5.5), seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2)
    teach = Interviewer(learn)
    iv = Interview(teach, page_size=10, strategy='seen', about=dict(town='odd'))
    assert (iv.next_page().item % 2 == 1).all() and iv.next_page().seen.min() > .3
    back = Interview.from_json(teach, iv.to_json())
    assert back.about == iv.about and back.next_page().equals(iv.next_page())
    iv.answer({1: 5, 3: None})
    assert len(iv.explain(5)) == 2
    unknown = Interview(teach, about=dict(town='elsewhere'))
    assert .1 < unknown.beliefs().seen.mean() < .4
    cold = df[df.user >= 160]
    ask = rng.random(len(cold)) < .5
    a,b = (simulate_interview(teach, cold[ask], cold[~ask], ['seen'], 10, 1, users=o) for o in (users, None))
    assert a.answers[1] > b.answers[1] + 1
    with pytest.raises(ValueError, match='users: the learner knows no metadata'): Interview(trained(simulate_ratings(30, 30, 300, seed=0), k=2), about=dict(age=3))

def test_replies_one_at_a_time(world):
    "The page stays open, each reply can be taken back, and in the end it is the same as all at once"
    iv,seen = Interview(world['teach'], page_size=5, pages=2),[]
    iv.watchers.append(lambda: seen.append(len(iv.log)))
    page = iv.next_page()
    a,b,c = page.item[:3]
    iv.answer({a: 5}, done=False).answer({b: None}, done=False).answer({c: 1}, done=False)
    assert iv.open_page == page.item.tolist() and iv.next_page().item.equals(page.item) and iv.page_count == 0 and seen == [1, 2, 3, 4]
    back = Interview.from_json(world['teach'], iv.to_json())
    assert back.open_page == iv.open_page and back.replies == iv.replies == {a: 5, b: None, c: 1}
    iv.skip([c])
    assert iv.replies == {a: 5, b: None} and iv.open_page
    iv.undo()
    assert iv.replies == {a: 5, b: None, c: 1}
    iv.undo().answer({})
    assert iv.replies == {a: 5, b: None} and iv.page_count == 1 and iv.open_page is None
    once = Interview(world['teach'], page_size=5, pages=2)
    once.next_page(); once.answer({a: 5, b: None})
    assert once.next_page().equals(iv.next_page()) and once.recommend().equals(iv.recommend())
    iv.undo()
    assert iv.open_page == page.item.tolist() and iv.replies == {a: 5, b: None}
    with pytest.raises(UnknownIdError): iv.skip([999])

# --- questions about an attribute's value

@pytest.fixture(scope='module')
def genre(world): return ProxyQuestions(world['teach'].learn, 'genre')

def test_topics_are_asked_answered_taken_back_and_kept(world, genre):
    t = world['teach']
    iv = Interview(t, page_size=30, pages=9, proxies=genre)
    page = iv.next_page()
    assert list(page.columns) == ['item', 'title', 'year', 'kind', 'seen', 'reply'] and set(page.kind) == {'item', 'genre'} and page.equals(iv.next_page()) and page.seen.between(0, 1).all()
    topics = page[page.kind == 'genre'].item.tolist()
    assert all(k[0] == 'genre' for k in topics) and list(page.item) == iv.open_page
    k = topics[0]
    iv.answer({k: 1, page.item[page.kind == 'item'].iloc[0]: 5})
    assert iv.replies[k] == 1
    base = Interview(t).answer({i: v for i,v in iv.replies.items() if i != k})
    torch.testing.assert_close(iv.beliefs().taste.mean, answer_proxies(genre, {k[1]: 1}, t.base, base.beliefs().taste).mean, atol=1e-3, rtol=1e-3)
    e = iv.explain(9).set_index('item')
    at = lambda o: o.beliefs().taste.expected()[0, 9].item()
    assert e.effect[[k]].iloc[0] == pytest.approx(at(iv) - at(base), abs=2e-3) and len(e) == 2
    with pytest.raises(ValueError, match="proxies: the interview asks about genre"): Interview.from_json(t, iv.to_json())
    back = Interview.from_json(t, iv.to_json(), genre)
    assert back.log == iv.log and back.to_json() == iv.to_json() and back.next_page().equals(iv.next_page()) and np.isfinite(back.progress().expected_rmse)
    iv.undo()
    if iv.replies: iv.undo()
    assert iv.replies == {}
    iv.skip([k]).skip()
    seen = [*topics]
    while (page := iv.next_page()) is not None: seen += [o for o in page.item if isinstance(o, tuple)]; iv.skip()
    assert len(seen) == len(set(seen)) == 5
    iv.answer({k: None})
    assert torch.equal(iv.beliefs().taste.mean, Interview(t).beliefs().taste.mean)

def test_topics_are_refused_where_they_would_not_be_asked(world, genre):
    with pytest.raises(ValueError, match="proxies: only the strategy 'adaptive'"): Interview(world['teach'], strategy='popular', proxies=genre)
    with pytest.raises(UnknownIdError): Interview(world['teach']).answer({('genre', 'a'): 3})
    with pytest.raises(UnknownIdError): Interview(world['teach'], proxies=genre).answer({('genre', 'z'): 3})

def test_simulation_with_topics(world, genre):
    a = simulate_interview(world['teach'], world['answers'], world['test'], ('adaptive', 'popular'), 5, 2, proxies=genre)
    b = simulate_interview(world['teach'], world['answers'], world['test'], ('adaptive', 'popular'), 5, 2)
    at = lambda o, s: o[o.strategy == s].rmse.tolist()
    assert at(a, 'popular') == at(b, 'popular') and at(a, 'adaptive')[0] == at(b, 'adaptive')[0] and at(a, 'adaptive')[1] != at(b, 'adaptive')[1]
    assert np.isfinite(a.rmse).all()

def test_a_text_that_to_json_never_wrote_is_refused_by_name(world):
    iv = Interview(world['teach'], page_size=3, pages=2)
    page = iv.next_page()
    iv.answer({page['item'].iloc[0]: 4, page['item'].iloc[1]: None})
    good = json.loads(iv.to_json())
    strange = [None, 0, -1, 1.5, True, 'nonsense', [], {}, [[]], [['page']], [['answer', [1]]], [['page', None]], [['nonsense', []]], [['skip', [1]]], [[['page'], []]]]
    texts = ['', '[', '1', 'null', '[]', '{}', '"x"', '[' * 100_000, *(json.dumps({k: v for k,v in good.items() if k != o}) for o in good if o != 'proxies'), *(json.dumps(good | {'log': o}) for o in strange if o != [])]
    for text in texts:
        with pytest.raises(ValueError, match='^text: expected what to_json gave'): Interview.from_json(world['teach'], text)
    for k in good.keys() - {'log', 'proxies'}:
        for o in strange:
            try: Interview.from_json(world['teach'], json.dumps(good | {k: o}))
            except ValueError as e: assert k in str(e), (k, o, e)

def test_who_stays_becomes_a_user_with_what_they_said(world):
    from copy import deepcopy
    import fastcf.bayes.growth
    learn = deepcopy(world['teach'].learn)
    iv = Interview(world['teach']).answer({1: 5, 2: None, 3: 1, 8: 4})
    before = iv.recommend(200, rank_by='rating').set_index('item').prediction
    assert iv.add_to(learn, 777) is learn and 777 in learn.dls.catalog.user.ids
    got = learn.recommend(777, 200, rank_by='rating').set_index('item').prediction
    assert not {1, 3, 8} & set(got.index) and 2 in got.index # what was rated is seen, what was not seen is not
    both = pd.concat([before, got], axis=1).dropna()
    assert len(both) > 100 and both.corr(method='spearman').iloc[0, 1] > .8 # the same taste; only the interview takes "not seen" for a sign of it
    t = learn.dls.train_ds
    rows = t.users == int(learn.dls.catalog.user.rows([777])[0])
    assert sorted(t.ratings[rows].tolist()) == [1., 4., 5.]
    with pytest.raises(ValueError, match='add_to: the newcomer rated nothing'): Interview(world['teach']).answer({2: None}).add_to(learn, 778)

def test_a_page_goes_out_and_comes_back_as_a_frame(world):
    "The loop for a terminal that the tutorial shows"
    iv = Interview(world['teach'], page_size=4, pages=2)
    said = iter(['5', '', '3', '1', '4', '', '', ''])
    while (page := iv.next_page()) is not None:
        for j,title in page.title.items():
            reply = next(said)
            page.loc[j, 'reply'] = float(reply) if reply else None
        iv.answer(page)
    assert iv.page_count == 2 and [v for v in iv.replies.values()] == [5., None, 3., 1., 4., None, None, None]
