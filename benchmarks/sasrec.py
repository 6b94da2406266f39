"SASRec (Kang & McAuley 2018) as plainly as PyTorch says it, full softmax, without anything of fastcf: the peer of the sequence model"
import math, numpy as np, torch
from torch import nn
from torch.nn import functional as F

class SASRec(nn.Module):
    "A transformer encoder over the last `length` items, padded on the left by 0; the items' vectors are also the output layer"
    def __init__(self, items, width, length, layers, heads, dropout):
        super().__init__()
        self.items,self.places = nn.Embedding(items + 1, width, padding_idx=0),nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, 'gelu', batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        for o in (self.items, self.places): nn.init.normal_(o.weight, std=.02)
        nn.init.zeros_(self.items.weight[0].detach())

    def forward(self, x): # [b, length] -> [b, length, width]
        h = self.dropout(self.items(x) * math.sqrt(self.items.embedding_dim) + self.places.weight)
        n = x.shape[1]
        blocked = torch.ones(n, n, dtype=torch.bool).triu(1) | (x == 0)[:, None] # [b, n, n]
        blocked = (blocked & ~torch.eye(n, dtype=torch.bool)).repeat_interleave(self.encoder.layers[0].self_attn.num_heads, 0)
        return self.encoder(h, blocked)

def windows(users, items, times, user_count, length):
    "The last `length` items of each user, numbered from 1, the newest last; 0 where there are none"
    users,items = users.astype('int64'),items.astype('int64')
    order = np.lexsort((np.arange(len(users)), times, users))
    x = torch.zeros(user_count, length, dtype=torch.int64)
    counts = np.bincount(users, minlength=user_count)
    back = np.repeat(counts.cumsum(), counts) - np.arange(len(users)) # 1 for the newest
    keep = back <= length
    x[users[order][keep], length - back[keep]] = torch.as_tensor(items[order][keep]) + 1
    return x

def sasrec_scores(users, items, times, user_count, item_count, seed=0, epochs=40, width=64, length=100, layers=2, heads=2, dropout=.4, lr=3e-3, bs=64):
    "Scores of every item as what comes next [users, items]"
    torch.manual_seed(seed)
    model = SASRec(item_count, width, length, layers, heads, dropout)
    x = windows(users, items, times, user_count, length + 1)
    steps = epochs * math.ceil(user_count / bs)
    opt = torch.optim.AdamW(model.parameters(), lr=lr, betas=(.9, .98), weight_decay=.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=steps)
    for _ in range(epochs):
        for at in torch.randperm(user_count).split(bs):
            known,answer = x[at, :-1],x[at, 1:]
            asked = (known > 0) & (answer > 0)
            loss = F.cross_entropy(model(known)[asked] @ model.items.weight[1:].T, answer[asked] - 1)
            opt.zero_grad(); loss.backward(); opt.step(); schedule.step()
    model.eval()
    with torch.no_grad(): return torch.cat([model(o[:, 1:])[:, -1] @ model.items.weight[1:].T for o in x.split(256)])
