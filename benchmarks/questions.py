"""What the interview's choices are worth, measured where the cold users of `benchmarks.coldstart` play no part.

`python -m benchmarks.questions`: the 708 known users of that protocol are split into four parts, three times over; each part in turn is
taken for newcomers to a learner fitted on the other three, half of their ratings can be given as answers, the other half is the test.
Twelve splits, every way of asking on the same ones: beside the means stands the difference from the interview as it is, with its
standard error over splits (a user is in three of them, so that it is a little small). Pages have twenty questions; question by question
takes as long as all other rows together and is done on every third split, so that only its differences can be compared.
"""
from unittest.mock import patch
import numpy as np, pandas as pd, torch
from benchmarks.coldstart import cold_users, fitted
from fastcf.interview import questions
from fastcf.data.sources import load_ml100k
from dataclasses import replace
from fastcf.interview.simulate import simulate_interview
from fastcf.interview.questions import ExposureModel, Interviewer, TastePrior, variance_reduction

def splits(ml, times=3, parts=4):
    "Of each split: ratings of known users, answers and test of newcomers"
    known = cold_users(ml)[0]
    users = np.sort(known.user.unique())
    for t in range(times):
        order = np.random.default_rng(100 + t).permutation(users)
        for p,part in enumerate(np.array_split(order, parts)):
            new = known.user.isin(part)
            theirs = known[new]
            can = np.random.default_rng(200 + t * parts + p).random(len(theirs)) < .5
            yield known[~new], theirs[can], theirs[~can]

def squared(gain, q):
    "The chance of an answer counts twice"
    return variance_reduction(gain, replace(q, chance=q.chance.square()))

def ratings_only(gain, q):
    "What a reply says of habits does not count"
    return variance_reduction(replace(gain, habit_effect=0 * gain.habit_effect), q)

def with_habits(k):
    def change(teach):
        teach.exposure = ExposureModel(teach.learn, k)
        teach.prior = TastePrior(teach.learn, teach.exposure)
        teach.base = teach.prior.base
    return change

def noisier(teach): teach.base.likelihood.noise *= 1.3
def habits_say_nothing(teach): teach.prior.ridge.weight, teach.prior.ridge.residual = 0 * teach.prior.ridge.weight, teach.base.cov()
def nothing(teach): pass

WAYS = { # strategy, change of what is believed, change of what is chosen, questions a page
    'adaptive': ('adaptive', nothing, variance_reduction, 20), 'one by one': ('adaptive', nothing, variance_reduction, 1),
    'popular': ('popular', nothing, variance_reduction, 20), 'likeliest seen': ('seen', nothing, variance_reduction, 20), 'popularity × entropy': ('entropy', nothing, variance_reduction, 20),
    '5 habits': ('adaptive', with_habits(5), variance_reduction, 20), '20 habits': ('adaptive', with_habits(20), variance_reduction, 20), '40 habits': ('adaptive', with_habits(40), variance_reduction, 20),
    'habits say nothing of taste': ('adaptive', habits_say_nothing, variance_reduction, 20), 'noise of ratings × 1.3': ('adaptive', noisier, variance_reduction, 20),
    'chance of an answer squared': ('adaptive', nothing, squared, 20), 'only ratings teach': ('adaptive', nothing, ratings_only, 20)}

def main():
    torch.set_num_threads(1)
    ml, rows = load_ml100k(), []
    for s,(train, answers, test) in enumerate(splits(ml)):
        learn = fitted(train, ml, s, valid_pct=.02)
        for name,(strategy, change, worth, size) in WAYS.items():
            if size == 1 and s % 3: continue
            teach = Interviewer(learn)
            change(teach)
            with patch.object(questions, 'variance_reduction', worth): df = simulate_interview(teach, answers, test, [strategy], size, 60 // size)
            at, every = df[df.strategy == strategy].set_index('questions'), df.rmse.iloc[-1]
            rows.append(dict(way=name, split=s, **{f'rmse {q}': at.rmse[q] for q in (0, 20, 40, 60)}, answers=at.answers[60], all=every, closed=(at.rmse[0] - at.rmse[60]) / (at.rmse[0] - every)))
    df = pd.DataFrame(rows).set_index(['way', 'split'])
    table = df.groupby('way', sort=False).mean()
    for v in ('rmse 20', 'rmse 60'):
        d = df[v].unstack('way')
        d = d.sub(d['adaptive'], axis=0)
        table[f'{v} beside'] = [f'{d[w].mean():+.4f} ± {d[w].sem():.4f}' for w in table.index]
    print(f'Newcomers of {s + 1} splits of the known users:\n' + table.to_string(float_format='%.4f'))

if __name__ == '__main__': main()
