"A recommender on the Hub and back, against a Hub of our own on this machine"
import hashlib, json, shutil, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import huggingface_hub, pytest
from fastcf.serve import hub
from fastcf.serve.format import RecommenderFileError
from fastcf.serve.hub import push_to_hub
from fastcf.serve.recommender import Recommender
from test_recommender_files import alike, learn, make, saved

class Hub(BaseHTTPRequestHandler):
    "What a download needs of the Hub: what a repository holds, and its files"
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    def send(self, body, status=200, **headers):
        self.send_response(status)
        for k,v in headers.items(): self.send_header(k.replace('_', '-'), v)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(body)

    def do_GET(self):
        root,parts = self.server.root,self.path.partition('?')[0].strip('/').split('/')
        self.server.asked.append(self.path)
        sha = self.server.sha
        if parts[:2] == ['api', 'models'] and (root/'/'.join(parts[2:4])).is_dir():
            if parts[4:5] == ['tree']: return self.send(json.dumps([dict(type='file', path=p.name, size=p.stat().st_size, oid='0' * 40) for p in (root/'/'.join(parts[2:4])).iterdir()]).encode(), Content_Type='application/json')
            files = [dict(rfilename=p.name) for p in sorted((root/'/'.join(parts[2:4])).iterdir())]
            return self.send(json.dumps(dict(id='/'.join(parts[2:4]), sha=sha, siblings=files, private=False, downloads=0, likes=0, tags=[])).encode(), Content_Type='application/json')
        if len(parts) > 4 and parts[2] == 'resolve' and (p := root/'/'.join(parts[:2])/parts[4]).is_file():
            data = p.read_bytes()
            return self.send(data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=sha)
        self.send(b'', 404, X_Error_Code='RepoNotFound')
    do_HEAD = do_GET

@pytest.fixture
def address(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.root,server.sha,server.asked = tmp_path/'hub','a' * 40,[]
    server.root.mkdir()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    class Api(huggingface_hub.HfApi):
        "Uploads by copying; the rest as it is"
        def create_repo(self, repo_id, **kwargs): assert kwargs == dict(private=True, exist_ok=True)
        def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns):
            there = server.root/repo_id
            for o in delete_patterns:
                for p in there.glob(o): p.unlink()
            shutil.copytree(folder_path, there, dirs_exist_ok=True)
            return f'{repo_id}@{server.sha}'
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api)
    yield server,f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

def test_there_and_back(saved, address, tmp_path):
    server,url = address
    assert push_to_hub(saved, 'me/films', endpoint=url).startswith('me/films')
    get = lambda: Recommender.from_pretrained('me/films', place=tmp_path/'place', endpoint=url)
    users = list(Recommender.load(saved).user.vocab[:3])
    alike(get().recommend(users, 3), Recommender.load(saved).recommend(users, 3))
    n = len([o for o in server.asked if 'resolve' in o])
    get()
    assert len([o for o in server.asked if 'resolve' in o]) == n # of a commit that is here nothing is asked again
    push_to_hub(make(factors=3).save_recommender(tmp_path/'new', interview=False), 'me/films', endpoint=url)
    server.sha = 'b' * 40
    assert get().info['factor_count'] == 3 and sorted(p.name[0] for p in (tmp_path/'place/me--films').iterdir()) == ['a', 'b']

def test_what_comes_is_checked(saved, address, tmp_path):
    server,url = address
    push_to_hub(saved, 'me/films', endpoint=url)
    with open(server.root/'me/films/ids.json', 'a') as f: f.write(' ')
    with pytest.raises(RecommenderFileError, match='ids.json: its SHA-256'): Recommender.from_pretrained('me/films', place=tmp_path/'place', endpoint=url)
    with pytest.raises(RecommenderFileError, match='SHA256SUMS: missing'): push_to_hub(tmp_path, 'me/films', endpoint=url)

def test_a_folder_is_never_asked_of_the_hub(saved, monkeypatch):
    monkeypatch.setattr(hub, '_hub', lambda: pytest.fail('asked'))
    assert Recommender.from_pretrained(saved).info == Recommender.load(saved).info

@pytest.mark.parametrize('name', ['me/nothing', 'no name of a repository', '../../no/such'])
def test_what_is_not_there_is_named(address, name, tmp_path):
    with pytest.raises(RecommenderFileError, match='not to be had from the Hub'): Recommender.from_pretrained(name, place=tmp_path, endpoint=address[1])

def test_without_a_network(saved, tmp_path):
    with pytest.raises(RecommenderFileError, match='not to be had from the Hub'): Recommender.from_pretrained('me/films', place=tmp_path, endpoint='http://127.0.0.1:9')
    with pytest.raises(RecommenderFileError, match='cannot be uploaded'): push_to_hub(saved, 'me/films', endpoint='http://127.0.0.1:9')
