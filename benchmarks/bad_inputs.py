"""The same bad inputs through fastai.collab, Surprise, implicit and fastcf: what each says, or that it says nothing.

`python -m benchmarks.bad_inputs` prints the table of the documentation. A library that is not installed is left out."""
import contextlib, io, os, tempfile, warnings
from pathlib import Path
import numpy as np, pandas as pd

def ratings(n=150):
    rng = np.random.default_rng(0)
    pairs = rng.permutation(400)[:n]
    return pd.DataFrame(dict(user=pairs // 20, item=pairs % 20, rating=rng.integers(1, 6, n)))

def changed(col, value, kind=None):
    "The ratings with one cell as somebody else's export has it"
    df = ratings()
    df[col] = df[col].astype(kind or 'float64')
    df.loc[7, col] = value
    return df

INPUTS = {
    'a rating is missing': lambda: changed('rating', np.nan), 'a rating is infinite': lambda: changed('rating', np.inf), 'a rating of 50 on a scale from 1 to 5': lambda: changed('rating', 50),
    'a user is missing': lambda: changed('user', np.nan), 'one pair three times, rated 1, 3 and 5': lambda: pd.concat([ratings(), pd.DataFrame(dict(user=[0] * 3, item=[0] * 3, rating=[1, 3, 5]))], ignore_index=True).drop_duplicates(['user', 'item', 'rating']),
    'ids 7 and "7" are different users': lambda: changed('user', '7', object), 'ratings are text': lambda: ratings().assign(rating=lambda d: d.rating.map({1: 'bad', 2: 'poor', 3: 'fair', 4: 'good', 5: 'best'})), 'no rows at all': lambda: ratings().iloc[:0]}

def fastai():
    from fastai.collab import CollabDataLoaders, collab_learner
    def fit(df):
        learn = collab_learner(CollabDataLoaders.from_df(df, valid_pct=.2, bs=32, seed=0), n_factors=4, y_range=(0, 5.5))
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        return learn
    def predict(learn, users, items):
        dl = learn.dls.test_dl(pd.DataFrame(dict(user=users, item=items)))
        with learn.no_bar(), learn.no_logging(): return learn.get_preds(dl=dl)[0].flatten().numpy()
    def save(learn, path): learn.export(path); return path
    from fastai.learner import load_learner
    return fit,predict,save,load_learner

def surprise():
    from surprise import SVD, Dataset, Reader, dump
    fit = lambda df: SVD(n_epochs=2, random_state=0).fit(Dataset.load_from_df(df[['user', 'item', 'rating']], Reader(rating_scale=(1, 5))).build_full_trainset())
    predict = lambda m, users, items: np.array([m.predict(u, i).est for u,i in zip(users, items)])
    def save(m, path): dump.dump(str(path), algo=m); return path
    return fit,predict,save,lambda path: dump.load(str(path))[1]

def implicit():
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import coo_matrix
    def fit(df):
        (u,users),(i,items) = pd.factorize(df.user),pd.factorize(df.item)
        m = AlternatingLeastSquares(factors=4, iterations=2, random_state=0, num_threads=1)
        m.fit(coo_matrix((df.rating, (u, i)), (len(users), len(items))).tocsr(), show_progress=False)
        return m
    def save(m, path): m.save(str(path)); return Path(str(path)) if Path(str(path)).exists() else Path(f'{path}.npz')
    return fit,lambda m, users, items: (m.user_factors[users] * m.item_factors[items]).sum(1),save,lambda path: AlternatingLeastSquares.load(str(path))

def fastcf():
    from fastcf.all import CFDataLoaders, cf_learner
    from fastcf.serve.recommender import Recommender
    def fit(df):
        learn = cf_learner(CFDataLoaders.from_df(df, valid_pct=.2, bs=32, seed=0), factor_count=4, y_range=(.5, 5.5))
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        return learn
    return fit,lambda m, users, items: m.predict(users, items).prediction.to_numpy(),lambda m, path: m.save_recommender(path),Recommender.load

LIBRARIES = {'fastai.collab': fastai, 'Surprise': surprise, 'implicit': implicit, 'fastcf': fastcf}

OF_NO_MATTER = 'pickle', 'deprecated', 'not writable', 'unclosed file' # warnings that are not about the input

def outcome(f):
    "What a call ends in, in a few words; `f` gives numbers, or `None` where there are none to look at"
    with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter('always')
        try: res = f()
        except Exception as e:
            lines = str(e).strip().splitlines()
            return f"{type(e).__name__}: {' '.join(lines)[:110]}" if lines else type(e).__name__
    warned = [str(o.message) for o in said if not issubclass(o.category, (DeprecationWarning, FutureWarning, PendingDeprecationWarning)) and 'fit ends at' not in str(o.message) and not any(w in str(o.message) for w in OF_NO_MATTER)]
    word = f"warns ({warned[0][:60]}), and" if warned else 'no word,'
    if res is None: return 'no word'
    bad = ~np.isfinite(np.asarray(res, dtype='float64'))
    return f"{word} predictions are NaN" if bad.any() else f"{word} predicts {float(np.ravel(res)[0]):.2f}"

def rows():
    "One dict an input: its name, and what each library that is here makes of it"
    there = {}
    for name,make in LIBRARIES.items():
        try: there[name] = make()
        except ImportError: pass
    res = []
    for what,make in INPUTS.items():
        res.append({'input': what} | {name: outcome(lambda: predict(fit(make()), [1, 2], [3, 4])) for name,(fit,predict,*_) in there.items()})
    models = {name: o[0](ratings()) for name,o in there.items()}
    res.append({'input': 'a user nobody has seen'} | {name: outcome(lambda: there[name][1](m, [10**6], [3])) for name,m in models.items()})
    tmp = Path(tempfile.mkdtemp())
    for what,spoil in {'the file was cut in half': lambda b: b[:len(b) // 2], 'eight bytes of the file are others': lambda b: b[:len(b) // 2] + bytes(o ^ 0x55 for o in b[len(b) // 2:len(b) // 2 + 8]) + b[len(b) // 2 + 8:]}.items():
        line = {'input': what}
        for name,m in models.items():
            path = there[name][2](m, tmp/f'{name}_{len(res)}')
            p = path/'tables.safetensors' if Path(path).is_dir() else Path(path)
            p.write_bytes(spoil(p.read_bytes()))
            line[name] = outcome(lambda: there[name][1](there[name][3](path), [1, 2], [3, 4])).replace(f'{tmp}/', '')
        res.append(line)
    res.append({'input': 'opening a file runs code in it'} | {name: {'fastai.collab': 'yes, it is a pickle', 'Surprise': 'yes, it is a pickle', 'implicit': 'no', 'fastcf': 'no'}[name] for name in there})
    return res

def table(rows):
    "As Markdown"
    cols,clean = list(rows[0]),lambda o: str(o).replace('|', '\\|').replace('<', '&lt;').replace('\n', ' ')
    return '\n'.join(['| ' + ' | '.join(cols) + ' |', '|' + '---|' * len(cols)] + ['| ' + ' | '.join(clean(o[c]) for c in cols) + ' |' for o in rows])

def main(): print(table(rows()))

if __name__ == '__main__': main()
