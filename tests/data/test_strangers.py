"Somebody new, with a file of their own: what the page 'Your own data' says, followed step by step, on three files that it has not seen"
import warnings
import numpy as np, pandas as pd, pytest
from fastcf.data.splits import TimeSplitter
from fastcf.core import UnknownIdError
from fastcf.data.checks import check_ratings
from fastcf.data.sources import simulate_ratings
import fastcf.learn.predict, fastcf.rank.topn, fastcf.bayes.foldin
from fastcf.learn.learner import cf_learner
from fastcf.data.loaders import CFDataLoaders
import fastcf.bayes.foldin

def bakery(path):
    "A European export: semicolons, decimal commas, days first, thousands in ids, not in UTF-8, marks for no answer, a sum below"
    df = simulate_ratings(300, 200, 6000, seed=1, step=.5)
    x = pd.DataFrame({'Datum': pd.to_datetime(df.timestamp, unit='s').dt.strftime('%d.%m.%Y'), 'Kundennr.': df.user.map(lambda o: f'{o + 100_000:,}'.replace(',', '.')),
                      'Artikel': df.item.map(lambda o: f'Käse {o}'), 'Bewertung': df.rating.map(lambda o: f'{o:.1f}'.replace('.', ','))})
    x.loc[::300, 'Bewertung'] = 'k. A.'
    path.write_bytes((x.to_csv(sep=';', index=False) + ';;Summe;21126,5\n').encode('cp1252'))
    return df.drop(index=df.index[::300])

def club(path):
    "A spreadsheet: lines above the table, an index without a name, text ids with zeros in front and stray spaces, blank rows, odd marks"
    df,rng = simulate_ratings(250, 150, 5000, seed=2),np.random.default_rng(2)
    x = pd.DataFrame({'': np.arange(5000).astype(str), 'Member': df.user.map(lambda o: f'{o:05d}'), 'Book': df.item.map(lambda o: f'B-{o}'), 'title': df.item.map(lambda o: f'Book no. {o}'), 'Stars': df.rating.map(lambda o: f'{o:.0f}')})
    x.loc[rng.random(5000) < .02, 'Member'] += ' '
    x.loc[5::100, 'Stars'] = x.Stars[5::100].map(lambda o: '★' * int(o))
    x.loc[17::150, 'Stars'] = 'n/a'
    x.loc[::40] = ''
    path.write_text('\ufeffReading club,,,,\n,,,,\n' + x.to_csv(index=False), encoding='utf-8')
    return df.drop(index=df.index[(np.arange(5000) % 150 == 17) | (np.arange(5000) % 40 == 0)])

def shop(path):
    "A log of events, newest first: times, words for what was done, keys as ids, repeated pairs, visitors without a key"
    df = simulate_ratings(400, 250, 8000, seed=3)
    again = df.sample(3000, random_state=1)
    df = pd.concat([df, again.assign(timestamp=again.timestamp + 86_400 * 3, rating=(again.rating + 1).clip(upper=5))], ignore_index=True)
    x = pd.DataFrame({'ts': pd.to_datetime(df.timestamp, unit='s').dt.strftime('%Y-%m-%dT%H:%M:%SZ'), 'event': np.array(['view', 'view', 'cart', 'cart', 'buy'])[df.rating.astype(int) - 1],
                      'session': np.arange(len(df)) % 997, 'user_id': df.user.map(lambda o: f'{o:032x}'), 'sku': df.item})
    x.loc[::500, 'user_id'] = None
    x.sort_values('ts', ascending=False).to_csv(path, index=False)
    df = df[np.arange(len(df)) % 500 != 0]
    return df.sort_values('timestamp').drop_duplicates(['user', 'item'], keep='last').assign(rating=lambda o: (o.rating.astype(int) + 1) // 2)

def says(f, *words):
    "The error that `f` ends in says all of these"
    with pytest.raises(ValueError) as e: f()
    missing = [w for w in words if w not in str(e.value)]
    assert not missing, f"{missing} not in {e.value}"

def served(dls, y_range, known, liked, stars):
    "Known users, new ones with some ratings and new ones without any get what they have not rated; a fit beats the mean of the ratings"
    learn = cf_learner(dls, factor_count=10, y_range=y_range, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5)
    c = dls.catalog
    mine = learn.recommend(known, k=5, min_ratings=5)
    assert len(mine) == 5 and mine.value.is_monotonic_decreasing and mine.prediction.between(*y_range).all()
    new = learn.fold_in(dict.fromkeys(liked, stars)).recommend(5, min_ratings=5)
    assert len(new) == 5 and not set(new[c.item.name]) & set(liked)
    nobody = learn.fold_in({})
    assert len(nobody.recommend(5, min_ratings=5)) == 5
    several = learn.fold_in(pd.DataFrame({c.user.name: ['x', 'x', 'y'], c.item.name: [*liked[:2], liked[0]], c.rating_name: float(stars)}))
    assert several.recommend(2)[c.user.name].tolist() == ['x', 'x', 'y', 'y']
    a,b = (o.predict(items=list(c.item[:20]), interval=0.9) for o in (nobody, learn.fold_in(dict.fromkeys(liked, stars))))
    assert ((b.high - b.low) <= (a.high - a.low) + 1e-6).mean() > .9 # ratings teach
    with pytest.raises(UnknownIdError): learn.recommend('nobody at all')
    preds,targs = learn.get_preds()
    base = float((targs - dls.train_ds.ratings.mean()).square().mean())
    assert float((preds - targs).square().mean()) < base

def truth_of(clean, truth, names):
    "The table is what the file was made from: as many rows, users and items, the same sum of ratings"
    assert len(clean) == len(truth)
    assert (clean[names[0]].nunique(), clean[names[1]].nunique()) == (truth.user.nunique(), truth.item.nunique())
    assert clean[names[2]].sum() == pytest.approx(truth.rating.sum())

def test_semicolons_and_decimal_commas(tmp_path):
    path = tmp_path/'bewertungen.csv'
    truth = bakery(path)
    names = dict(user_name='Kundennr.', item_name='Artikel', rating_name='Bewertung')
    says(lambda: CFDataLoaders.from_csv(path), "sep=';'")
    read = dict(sep=';', decimal=',')
    says(lambda: CFDataLoaders.from_csv(path, read_kwargs=read), "encoding='cp1252'")
    read['encoding'] = 'cp1252'
    says(lambda: CFDataLoaders.from_csv(path, read_kwargs=read), 'user_name=', "'01.01.1970'")
    says(lambda: CFDataLoaders.from_csv(path, read_kwargs=read, **names), "na_values=['k. A.']")
    raw = pd.read_csv(path, **read, na_values=['k. A.'])
    says(lambda: CFDataLoaders.from_df(raw, **names), "dropna(subset=['Bewertung'])", "dropna(subset=['Kundennr.'])")
    raw = raw.dropna(subset=['Bewertung', 'Kundennr.'])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # pandas' own about the day
        says(lambda: CFDataLoaders.from_df(raw, **names, splitter=TimeSplitter(0.1, 'Datum')), "dayfirst=True")
    raw['Datum'] = pd.to_datetime(raw['Datum'], dayfirst=True)
    truth_of(check_ratings(raw, rating_range=(1, 5), **names), truth, list(names.values()))
    dls = CFDataLoaders.from_df(raw, **names, rating_range=(1, 5), splitter=TimeSplitter(0.1, 'Datum'), seed=0)
    served(dls, (0.5, 5.5), raw['Kundennr.'].mode()[0], ['Käse 1', 'Käse 2', 'Käse 5'], 5)

def test_a_spreadsheet(tmp_path):
    path = tmp_path/'club.csv'
    truth = club(path)
    names = dict(user_name='Member', item_name='Book', rating_name='Stars')
    says(lambda: CFDataLoaders.from_csv(path), 'skiprows=1')
    says(lambda: CFDataLoaders.from_csv(path, read_kwargs=dict(skiprows=2)), "'Stars': 50 values not a number") # found by their names
    raw = pd.read_csv(path, skiprows=2, index_col=0, dtype={'Member': str})
    says(lambda: check_ratings(raw, **names), "'★", "missing rating", "missing ids", "spaces around it", "df['Member'].str.strip()")
    raw['Member'] = raw['Member'].str.strip()
    raw['Stars'] = raw.Stars.map(lambda o: len(o) if isinstance(o, str) and '★' in o else o)
    clean = check_ratings(raw.dropna(subset=['Member', 'Book', 'Stars']), rating_range=(1, 5), **names)
    assert clean.attrs['repairs'] == [] or 'text became numbers' in clean.attrs['repairs'][0]
    truth_of(clean, truth, list(names.values()))
    dls = CFDataLoaders.from_df(clean, items=clean[['Book', 'title']].drop_duplicates('Book'), seed=0)
    assert '00010' in dls.classes['Member']
    served(dls, (0.5, 5.5), clean.Member.mode()[0], ['B-1', 'B-2', 'B-5'], 5)

def test_a_log_of_events(tmp_path):
    path = tmp_path/'events.csv'
    truth = shop(path)
    log = pd.read_csv(path)
    names = dict(user_name='user_id', item_name='sku', rating_name='event')
    says(lambda: check_ratings(log), "'user_id' looks like the users, 'sku' looks like the items", 'Pass rating_name')
    says(lambda: check_ratings(log, **names), "df['event'].map(", "dropna(subset=['user_id'])")
    log['event'] = log.event.map(dict(view=1, cart=2, buy=3))
    log = log.dropna(subset=['user_id'])
    says(lambda: check_ratings(log, **names), "duplicates='last'")
    assert check_ratings(log, duplicates='last', **names).attrs['repairs'][0].endswith('(last, by the order of rows)') # what happens, said
    clean = check_ratings(log, duplicates='last', time_name='ts', rating_range=(1, 3), **names)
    assert clean.attrs['repairs'][0].endswith("(last, by 'ts')")
    truth_of(clean, truth, list(names.values()))
    dls = CFDataLoaders.from_df(clean, seed=0)
    served(dls, (0.5, 3.5), clean.user_id.mode()[0], [int(o) for o in clean.sku.value_counts().index[:3]], 3)
