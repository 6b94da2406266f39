"""Serving: eight threads on one recommender, and `fastcf-serve` under clients: requests a second, p50 and p99, reloads, malformed requests.

`python -m benchmarks.serving [--seconds 10] [--clients 32] [--large]`. Clients and server share the machine's cores; its load stands in the first line. The floor is `/health`, an answer that needs no recommender.
Latency is measured twice: with all clients asking without a pause (the server is full, and what is measured is the queue), and at a bounded rate, half of what it then managed."""
import argparse, asyncio, json, os, random, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path
import numpy as np, pandas as pd, torch

def load(): return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"
def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

def ml100k(folder):
    "The folder of a recommender of MovieLens 100K"
    from fastcf.all import CFDataLoaders, cf_learner, load_ml100k
    ml = load_ml100k()
    learn = cf_learner(CFDataLoaders.from_df(ml.ratings, items=ml.items, seed=42, bs=512), factor_count=50, y_range=(.5, 5.5), seed=42)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 2e-2)
    return learn.save_recommender(folder),learn

def simulated(folder, users=200_000, items=50_000, k=32, ratings=10_000_000, habits=10, seed=0):
    "A folder of that size with random vectors: what an answer costs does not depend on what is in them"
    from fastcf.serve.contents import FORMAT, VERSION
    from fastcf.serve.format import values_to_json, write_folder
    g,n = torch.Generator().manual_seed(seed),k + 1
    draw = lambda *shape, scale=1.: torch.randn(*shape, generator=g) * scale
    per_user = torch.multinomial(torch.ones(users), ratings - users, replacement=True, generator=g).bincount(minlength=users) + 1
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), per_user.cumsum(0)])
    seen = (torch.rand(int(offsets[-1]), generator=g).square() * items).int()
    eye = lambda m: torch.eye(m)
    side = lambda key, count, counts: {f'{key}.vectors': draw(count, n, scale=.3), f'{key}.counts': counts, f'{key}.prior_mean': torch.zeros(n), f'{key}.prior_precision': 10 * eye(n)}
    tables = side('user', users, per_user) | side('item', items, torch.bincount(seen, minlength=items)) | {'seen.offsets': offsets, 'seen.items': seen}
    popularity = tables['item.counts'].float() / users
    interview = dict(audiences=draw(items, habits, scale=items**-.5), habits_mean=draw(habits), habits_precision=eye(habits), offsets=popularity.clone(), noise=(popularity * (1 - popularity)).clamp(min=1e-3), popularity=popularity,
                     f_mean=torch.zeros(habits), x_mean=torch.zeros(n), weight=draw(habits, n, scale=.1), residual=.1 * eye(n), values=torch.arange(1., 6))
    choice = dict(users=draw(users, 32, scale=.2), items=draw(items, 32, scale=.2))
    about = dict(noise=.8, attached=None, serves=False)
    info = dict(format=FORMAT, version=VERSION, made=dict(fastcf='simulated', at='2026-01-01'), user=about | dict(name='user', count=users), item=about | dict(name='item', count=items), rating_name='rating', factor_count=k,
                seen_count=len(seen), y_range=[.5, 5.5], limits=[.5, 5.5], metrics={}, settings={}, data={}, samples=None, parts=['choice.safetensors', 'interview.safetensors'],
                choice=dict(unobserved=.3, penalty=.01, curve=[0., 1.], rating_range=[1., 5.], lowest=.5))
    ids = dict(user=values_to_json(pd.Series(range(users))), item=values_to_json(pd.Series(range(items))), items=None, about=None, topics=None)
    return write_folder(folder, {'tables.safetensors': tables, 'interview.safetensors': interview, 'choice.safetensors': choice, 'recommender.json': json.dumps(info), 'ids.json': json.dumps(ids)})

# --- a server and its clients

class Server:
    "`fastcf-serve` as a process of its own"
    def __init__(self, folder):
        with socket.socket() as s: s.bind(('127.0.0.1', 0)); self.port = s.getsockname()[1]
        self.process = subprocess.Popen([sys.executable, '-c', 'from fastcf.serve.app import main; main()', str(folder), '--port', str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    def __enter__(self):
        for _ in range(3000):
            try: socket.create_connection(('127.0.0.1', self.port), 1).close(); return self
            except OSError: time.sleep(.1)
            if self.process.poll() is not None: raise RuntimeError(self.process.stderr.read().decode())
    def __exit__(self, *args): self.process.terminate(); self.process.wait(20)

def request(method, path, body=b''):
    return f'{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n'.encode() + body

async def answer(reader):
    "Status and body of one answer"
    head = await reader.readuntil(b'\r\n\r\n')
    length = int(head.lower().partition(b'content-length: ')[2].partition(b'\r')[0] or 0)
    return int(head.split(b' ', 2)[1]),await reader.readexactly(length)

async def clients(port, make, count, seconds, rate=None):
    "Ask with `count` connections, each waiting for its answer, at most `rate` requests a second in all: seconds of each answer and its status"
    times,codes,end = [],[],time.perf_counter() + seconds
    async def one(j):
        reader,writer = await asyncio.open_connection('127.0.0.1', port)
        rng,due = random.Random(j),time.perf_counter() + (j / rate if rate else 0)
        while time.perf_counter() < end:
            if rate:
                if (wait := due - time.perf_counter()) > 0: await asyncio.sleep(wait)
                start,due = due,due + count / rate # from when it was due: a late one counts as late
            else: start = time.perf_counter()
            writer.write(make(rng))
            codes.append((await answer(reader))[0])
            times.append(time.perf_counter() - start)
        writer.close()
    await asyncio.gather(*(one(j) for j in range(count)))
    return np.array(times),np.array(codes)

def posts(path, fields): return lambda rng: request('POST', path, json.dumps(fields(rng)).encode())

def questions(r):
    "A maker of requests for each path"
    users,items = r.user.vocab.ids[r.user.counts.numpy() > 0],r.item.vocab.ids[r.item.counts.numpy() > 5]
    user,some = lambda rng: users[rng.randrange(len(users))].item(),lambda rng: [[items[j].item(), rng.randint(1, 5)] for j in rng.sample(range(len(items)), 10)]
    return {'health': lambda rng: request('GET', '/health'), 'recommend': posts('/recommend', lambda rng: dict(users=[user(rng)])), 'fold-in': posts('/fold-in', lambda rng: dict(ratings=some(rng))), 'interview page': posts('/interview', lambda rng: {})}

def measure(folder, count, seconds):
    "A line a path: requests a second without a pause, and percentiles without a pause and at half that rate"
    from fastcf.serve.recommender import Recommender
    makers,lines = questions(Recommender.load(folder)),[]
    with Server(folder) as s:
        for name,make in makers.items():
            asyncio.run(clients(s.port, make, 2, 1.)) # warm
            full,codes = asyncio.run(clients(s.port, make, count, seconds))
            rate = len(full) / seconds
            calm,more = asyncio.run(clients(s.port, make, count, seconds, rate / 2))
            pct = lambda t: [round(float(o) * 1000, 1) for o in np.percentile(t, [50, 99])]
            lines.append(dict(path=name, per_second=round(rate), p50_full=pct(full)[0], p99_full=pct(full)[1], p50_half=pct(calm)[0], p99_half=pct(calm)[1], not_200=int((codes != 200).sum() + (more != 200).sum())))
    return pd.DataFrame(lines)

# --- one recommender, many threads

def threads(folder, count=8, seconds=60.):
    "Questions from many threads: answers other than alone, questions a second, and memory at the start and the end"
    from fastcf.serve.recommender import Recommender
    import fastcf.serve.interviews # Recommender.interview
    torch.set_num_threads(1)
    r = Recommender.load(folder)
    users,items = r.user.vocab.ids[r.user.counts.numpy() > 0][:200].tolist(),r.item.vocab.ids[r.item.counts.numpy() > 20][:20].tolist()
    ask = lambda j: [r.recommend(users[j], 5), r.predict(users[j], items[:5], interval=.9), r.fold_in({items[j % 20]: 5, items[(j + 1) % 20]: 2}).recommend(5), r.similar_items(items[j % 20], 3)]
    alone = [ask(j) for j in range(len(users))]
    wrong,done,marks,end = [],[0] * count,[],time.perf_counter() + seconds
    def run(t):
        rng = random.Random(t)
        while time.perf_counter() < end:
            j = rng.randrange(len(users))
            for a,b in zip(ask(j), alone[j]):
                if not a.equals(b): wrong.append((j, a, b))
            done[t] += 4
    crew = [threading.Thread(target=run, args=(t,)) for t in range(count)]
    for t in crew: t.start()
    while time.perf_counter() < end: marks.append(resident()); time.sleep(min(5., seconds / 4))
    for t in crew: t.join()
    return dict(threads=count, seconds=seconds, questions=sum(done), other_answers=len(wrong), mb_start=round(marks[min(1, len(marks) - 1)]), mb_end=round(resident()))

# --- reloads and nonsense

def reloads(folder, learn, count, seconds=20.):
    "Save again and again while clients ask: how often it was replaced, and what was lost"
    from fastcf.serve.recommender import Recommender
    make,stop,saves = questions(Recommender.load(folder))['recommend'],threading.Event(),[0]
    def save():
        while not stop.wait(2.5): learn.save_recommender(folder); saves[0] += 1
    with Server(folder) as s:
        t = threading.Thread(target=save); t.start()
        times,codes = asyncio.run(clients(s.port, make, count, seconds, 100))
        stop.set(); t.join()
        reader_out = asyncio.run(one_answer(s.port, request('GET', '/metrics')))[1].decode()
    ok = next(l.split()[-1] for l in reader_out.splitlines() if 'result="ok"' in l)
    return dict(requests=len(codes), lost=int((codes != 200).sum()), saved=saves[0], reloaded=int(ok), p99_ms=round(float(np.percentile(times, 99)) * 1000, 1))

async def one_answer(port, data, wait=5.):
    "The answer to some bytes; status 0 where the connection is closed without one"
    reader,writer = await asyncio.open_connection('127.0.0.1', port)
    try:
        writer.write(data)
        return await asyncio.wait_for(answer(reader), wait)
    except (asyncio.IncompleteReadError, ConnectionError): return 0,b''
    except asyncio.TimeoutError: return -1,b'' # it waits for more, as it should where a length promised more
    finally: writer.close()

def nonsense(rng):
    "A request that is wrong in one of many ways"
    from fastcf.serve.app import FIELDS
    path = rng.choice(list(FIELDS))
    junk = rng.choice([None, -1, 10**30, 1e308, '', 'x' * 3000, True, [], {}, [[]], [[1]], {'UUID': 'x'}, {'tuple': [[1]]}, '\u202e', '\x00', [None] * 50, [10**19], ['a', 1], {'a': {'b': []}}])
    fields = {k: rng.choice([junk, [1], [[1, 5]], 3]) for k in FIELDS[path] if rng.random() < .7}
    body = json.dumps(fields).encode()
    kind = rng.randrange(8)
    if kind == 0: body = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
    if kind == 1: body = body[:rng.randrange(len(body) + 1)]
    if kind == 2: return request(rng.choice(['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'POST', 'GET']), rng.choice(['/', '/../..', '/%00', '/recommend/', '/page.php?a=1', '/%ff', path]), body)
    if kind == 3: return b'POST /recommend HTTP/1.1\r\nHost: a\r\nContent-Length: ' + rng.choice([b'-1', b'x', b'99999999999', b'1e3']) + b'\r\n\r\n{}'
    if kind == 4: return bytes(rng.randrange(1, 256) for _ in range(rng.randrange(1, 100))) + b'\r\n\r\n'
    return request('POST', path, body)

def malformed(folder, count=1000, seed=0):
    "How many of as many odd requests end in which hundred of statuses"
    rng = random.Random(seed)
    with Server(folder) as s:
        async def ask():
            codes = []
            for _ in range(count): codes.append((await one_answer(s.port, nonsense(rng), .5))[0])
            return codes
        codes = asyncio.run(ask())
        alive = asyncio.run(one_answer(s.port, request('GET', '/health')))[0]
    kinds = pd.Series(codes).map(lambda c: {0: 'closed', -1: 'waits'}.get(c, f'{c // 100}xx')).value_counts().to_dict()
    return dict(sorted(kinds.items()), alive=alive == 200)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=10.); p.add_argument('--clients', type=int, default=32)
    p.add_argument('--large', action='store_true', help='200,000 users × 50,000 items, simulated'); p.add_argument('--only', default='', help='part: speed, threads, reloads, malformed')
    a,_ = p.parse_known_args()
    print(load(), flush=True)
    tmp = Path(tempfile.mkdtemp())
    folder,learn = ml100k(tmp/'ml')
    wanted = lambda part: a.only in ('', part)
    if wanted('speed'):
        print(f'MovieLens 100K, {a.clients} clients, milliseconds; {load()}', measure(folder, a.clients, a.seconds).to_string(index=False), sep='\n', flush=True)
        if a.large: print(f'200,000 × 50,000; {load()}', measure(simulated(tmp/'large'), a.clients, a.seconds).to_string(index=False), sep='\n', flush=True)
    if wanted('threads'): print(threads(folder, seconds=6 * a.seconds), load(), flush=True)
    if wanted('reloads'): print(reloads(folder, learn, a.clients, 2 * a.seconds), load(), flush=True)
    if wanted('malformed'): print(malformed(folder), load(), flush=True)

if __name__ == '__main__': main()
