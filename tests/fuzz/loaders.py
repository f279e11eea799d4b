"""Every loader of the suite, with small sound files of its formats made by the suite itself."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from made_up_tables import evaluation, trace
from method_cases import SEEDS, make, small_problem
from PIL import Image
from search_case import benchmark, plan_of

from fuzz import mutate
from fuzz.harness import Craft, Loader
from fuzz.submitted import metadata, submitted_set
from iadd import exchange
from iadd.artifacts import canonical_json, save_tensors
from iadd.data import Source, load_dataset, read_about
from iadd.data.arrays import Opened, read_arrays
from iadd.data.groups import groups_of
from iadd.data.images import decode
from iadd.data.parquet import read_parquet
from iadd.data.prepare import prepare
from iadd.exchange import buffers, torch_files
from iadd.experts import Experts, Recipe, expert_spec, record_shard
from iadd.experts.record import _finished
from iadd.leaderboard.results import read_metadata, read_rows, read_table, write_table
from iadd.leaderboard.rows import EVALUATIONS, TRACES, EvaluationRow, TraceRow
from iadd.methods._loop import Hooks, _Loop
from iadd.pipeline.config import load_config
from iadd.pipeline.plan import Plan
from iadd.pipeline.winner import sealed
from iadd.synthetic import SyntheticSet

CONFIGS = Path(__file__).parents[2] / "config"
IDENTITY = {"kind": "distilled", "seed": 0}


def loaders(folder: Path, names: Sequence[str] = ()) -> list[Loader]:
    """Those of the given names, or all; `folder` holds what they need beside their files."""
    torch.set_num_threads(1)
    made = [make(folder) for name, make in MAKERS.items() if not names or name in names]
    return [loader for loader in made if _sound(loader, folder / "sound")]


def _sound(loader: Loader, folder: Path) -> bool:
    """What was not mutated is read; it imports, too, what children then have."""
    for number, content in enumerate(loader.corpus):
        place = folder / loader.name / str(number)
        place.mkdir(parents=True)
        (place / loader.file).write_bytes(content)
        loader.load(place / loader.file)
    return True


def _config(folder: Path) -> Loader:
    anchors = b"""benchmark: a
ipc: [1]
datasets: [{name: blobs, label: b.c, augmentation: [crop]}]
.t: &t {iterations: 5, lr_img: 1.0}
evaluations: [{networks: {mlp: 1}, protocol: dc-v1}]
methods: {random: , mtt: {params: {<<: *t, clip: 1}}, x-1: {method: mtt, params: *t, ipc: {1: {}}}}
submissions: [{name: s, file: a.safetensors, ipc: 1, dataset: b.c}]
"""
    corpus = [(CONFIGS / "smoke.yaml").read_bytes(), anchors, json.dumps(benchmark()).encode()]

    def load(path: Path) -> object:
        plan = Plan(load_config(path))
        return plan.config.model_dump(), canonical_json(plan.config.model_dump(mode="json"))

    return Loader("config", "c.yaml", corpus, load, [mutate.yaml_file])


def _shard(folder: Path) -> Loader:
    dataset = load_dataset("blobs")
    network = small_problem(folder / "shard").network
    kinds = {}
    for number, recipe in enumerate(({}, {"waypoints": (0, 1, 3), "dtype": "float32"})):
        path, settings = folder / f"shard{number}.safetensors", Recipe(batch=64, **recipe)
        record_shard(dataset, network, settings, epochs=3, experts=range(2), seed=0, path=path)
        spec = expert_spec(dataset, network, settings, 3, 0)
        kinds[bool(recipe)] = path.read_bytes(), json.loads(canonical_json(spec))

    def load(path: Path) -> object:
        head = path.read_bytes()[:20_000]
        spec = kinds[b'"lengths"' in head][1]
        experts = Experts([path], spec)
        return [experts.snapshot(e, k) for e in range(experts.count) for k in (0, 1.5)]

    return Loader("shard", "shard0.safetensors", [c for c, _ in kinds.values()], load, SEALED)


def _partial(folder: Path) -> Loader:
    dataset, recipe = load_dataset("blobs"), Recipe(batch=64)
    network = small_problem(folder / "partial").network
    spec = expert_spec(dataset, network, recipe, 3, 0) | {"expert": 0}
    path = folder / "part.safetensors"
    parameters = torch.zeros(4, network.num_parameters)
    save_tensors(path, {"parameters": parameters}, spec, {"seconds": 1.0, "validation_accuracy": 0})

    def load(path: Path) -> object:
        found = _finished(path, spec)
        return found and found.attributes["seconds"] + 1.0

    return Loader("partial expert", "p.partial", [path.read_bytes()], load, SEALED)


def _sets(folder: Path) -> dict[str, SyntheticSet]:
    data = load_dataset("blobs")
    labels = torch.arange(4)
    images = data.train.images[[int(rows[0]) for rows in data.class_rows]].clone()
    common: dict[str, Any] = {"transform": data.transform, "class_names": data.class_names}
    hard = SyntheticSet(images, labels, **common, step_size=0.1, spec={"a": 1}, run={"seconds": 1})
    soft = torch.nn.functional.one_hot(labels, 4).float()
    small = SyntheticSet(images, soft, **common, decoding={"kind": "partition", "factor": 2})
    states = SyntheticSet(images, labels, **common, step_size=0.1, states=(hard, hard))
    rows = SyntheticSet(
        images[:0], labels, **common, rows=torch.arange(4), fingerprint=data.fingerprint
    )
    return {"hard": hard, "small": small, "states": states, "rows": rows}


def _saved(folder: Path) -> list[bytes]:
    found = []
    for name, each in _sets(folder).items():
        each.save(folder / f"{name}.safetensors")
        found.append((folder / f"{name}.safetensors").read_bytes())
    return found


def _distilled(folder: Path) -> Loader:
    dataset = load_dataset("blobs")

    def load(path: Path) -> object:
        found = SyntheticSet.load(path)
        found.images_of(dataset, path)
        found = found.resolve(dataset)
        ran = max(0, found.run.get("host_peak_bytes", 0))
        return [s.pixels() for s in (found, *found.states)], found.decoded().targets(), ran

    return Loader("distilled", "s.safetensors", _saved(folder), load, SEALED)


def _submission(folder: Path) -> Loader:
    dataset = load_dataset("blobs")

    def load(path: Path) -> object:
        found = exchange.read_set(path, dataset).resolve(dataset)
        return found.decoded().pixels(), found.image_bytes, found.classes

    return Loader("submission", "them.safetensors", _saved(folder), load, SEALED)


def _torch(folder: Path) -> Loader:
    hard = _sets(folder)["hard"]
    torch_files.write_dc(hard, folder / "dc.pt")
    accuracies = {"ConvNet": [np.float64(0.5)]}
    pair = [hard.images, hard.labels]
    torch.save({"data": [pair, pair], "accs_all_exps": accuracies}, folder / "two.pt")
    torch.save(hard.images, folder / "images.pt")
    corpus = [(folder / name).read_bytes() for name in ("dc.pt", "two.pt", "images.pt")]
    dataset = load_dataset("blobs")
    bare = exchange.Statement(dataset.transform, dataset.class_names)

    def load(path: Path) -> object:
        stored = torch_files.load(path)
        which: dict[str, Any] = {"labels": "sorted"}
        said = bare
        if isinstance(stored, dict):
            several = isinstance(stored.get("data"), list) and len(stored["data"]) > 1
            which = {"experiment": 0 if several else None}
            said = exchange.Statement() if "about" in stored else bare
        return exchange.read_set(path, dataset, said, **which).pixels()

    return Loader("torch", "images_best.pt", corpus, load, ZIPPED)


def _rate(folder: Path) -> Loader:
    torch.save(torch.tensor(0.01), folder / "lr.pt")
    torch.save(0.01, folder / "number.pt")
    corpus = [(folder / name).read_bytes() for name in ("lr.pt", "number.pt")]
    return Loader("step size", "lr.pt", corpus, lambda p: torch_files.step_size(str(p)), ZIPPED)


def _buffers(folder: Path) -> Loader:
    network = small_problem(folder / "buffers").network
    snapshots = [
        [part.clone() for part in network.split(torch.full((network.num_parameters,), float(k)))]
        for k in range(3)
    ]
    torch.save([snapshots, snapshots], folder / "replay_buffer_0.pt")

    def load(path: Path) -> object:
        found = buffers.Buffers.of(path.parent).trajectories()
        return [buffers._stacked(w, buffers._checked(w, t, network, 2)) for w, t in found]

    corpus = [(folder / "replay_buffer_0.pt").read_bytes()]
    return Loader("buffers", "replay_buffer_0.pt", corpus, load, ZIPPED)


def _npz_set(folder: Path) -> Loader:
    from iadd.exchange import arrays

    hard, dataset = _sets(folder)["hard"], load_dataset("blobs")
    arrays.write(hard, folder / "set.npz")

    def load(path: Path) -> object:
        return exchange.read_set(path, dataset).pixels()

    corpus = [(folder / "set.npz").read_bytes()]
    return Loader("npz set", "set.npz", corpus, load, ZIPPED)


def _arrays(folder: Path, suffix: str) -> Loader:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 8, 8), dtype=np.uint8)
    held: dict[str, Any] = {"train_images": images, "train_labels": np.arange(8) % 2}
    held |= {"val_images": images[:2], "val_labels": np.arange(2), "train_patient": np.arange(8)}
    held |= {"val_patient": np.arange(8, 10)}
    floats = {"train_images": (images / 255).astype(np.float32), "train_labels": np.arange(8) % 2}

    def load(path: Path) -> object:
        file = Opened(path)
        groups = "patient" if "train_patient" in file.names else None
        return read_arrays(file, Source("arrays", root=folder, groups=groups), "train", None, None)

    corpus = []
    for each in (held, floats):
        if suffix == ".npz":
            out = io.BytesIO()
            np.savez(out, **each, class_names=np.array(["a", "b"]))
            corpus.append(out.getvalue())
        else:
            from safetensors.numpy import save

            corpus.append(save(each, {"class_names": '["a","b"]'}))
    return Loader(
        suffix[1:] + " arrays", f"d{suffix}", corpus, load, ZIPPED if suffix == ".npz" else SEALED
    )


def _tables(folder: Path) -> Loader:
    schemas = {"evaluations": (EVALUATIONS, EvaluationRow), "traces": (TRACES, TraceRow)}
    rows: dict[str, list[Any]] = {"evaluations": [evaluation(seed=k) for k in range(3)]}
    rows["traces"] = [trace(k) for k in range(5)]
    for name, (schema, _) in schemas.items():
        write_table(rows[name], folder / f"{name}.parquet", schema, {"spec": {"a": [1, {"b": 2}]}})

    def load(path: Path) -> object:
        traces = b"validation_accuracy" in path.read_bytes()
        schema, row = schemas["traces" if traces else "evaluations"]
        return read_metadata(path), read_table(path, schema), read_rows(path, row)

    corpus = [(folder / f"{name}.parquet").read_bytes() for name in schemas]
    return Loader("tables", "t.parquet", corpus, load, TABLES)


def _parquet(folder: Path) -> Loader:
    pictures = [_picture("PNG", np.full((8, 8), 20 * k, dtype=np.uint8)) for k in range(6)]
    structures = [{"bytes": each, "path": None} for each in pictures]
    table = pa.table({"image": structures, "label": [0, 1] * 3, "patient": list("aabbcd")})
    kinds = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    told = {"huggingface": json.dumps({"info": {"features": kinds}})}
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(told), out)
    source = Source("arrays", root=folder, groups="patient")

    def load(path: Path) -> object:
        return read_parquet(source, {"train": [path]}, "train", None, None)

    return Loader("parquet images", "train-0.parquet", [out.getvalue()], load, TABLES)


def _winner(folder: Path) -> Loader:
    plan = plan_of()
    here = Path.cwd()
    os.chdir(folder)
    try:
        prepare(plan.source("blobs"), plan.data("blobs").folder)
        settings = dict(plan.config.points("mtt", 1)[0])
        params = plan.config.params("mtt", 1, settings).model_dump(mode="json")
        spec = json.loads(canonical_json(plan.search_spec("blobs", "mtt", 1)))
        about = plan.about("blobs")
    finally:
        os.chdir(here)
    found = {"spec": spec, "settings": settings, "params": params, "trial": 0}
    content = json.dumps(sealed(found)).encode()

    class Placed(Plan):
        place = Path()

        def winner(self, *_: object) -> Path:
            return self.place

        def about(self, _: str) -> Any:
            return about

    placed = Placed(plan.config)

    def load(path: Path) -> object:
        placed.place = path
        found = placed.read_winner("blobs", "mtt", 1)
        return plan.config.kind("mtt").Params(**found["params"])

    def resealed(random: Any, content: bytes) -> bytes:
        changed = mutate.tree(random, json.loads(content))
        return mutate._text(sealed(changed)).encode()

    return Loader("winner", "w.json", [content], load, [mutate.json_file, resealed])


def _checkpoint(folder: Path) -> Loader:
    method = make("mtt", small_problem(folder / "checkpoint"))
    path = folder / "checkpoint.safetensors"
    hooks = Hooks(checkpoint=path, identity=IDENTITY, checkpoint_seconds=0.0, keep_states=True)
    hooks.validate = lambda *_: 0.5
    loop = _Loop(method, SEEDS, hooks)
    for _ in range(4):
        loop.iterate()
    content = path.read_bytes()

    def load(path: Path) -> object:
        loop = _Loop(method, SEEDS, Hooks(checkpoint=path, identity=IDENTITY))
        loop.hooks.checkpoint = None  # it would be written to
        if loop.iteration <= loop.updates and loop.status == "ok":
            loop.iterate()
        return loop.finish() if loop.trace else None

    return Loader("checkpoint", "seed0.safetensors", [content], load, SEALED)


def _picture(form: str, pixels: np.ndarray[Any, Any], mode: str | None = None, **how: Any) -> bytes:
    out, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, format=form, **how)
    return out.getvalue()


def _image(folder: Path) -> Loader:
    grey = np.random.default_rng(0).integers(0, 256, (16, 12), dtype=np.uint8)
    colour = np.stack([grey, grey.T.copy().reshape(16, 12), grey[::-1]], 2)
    more = [Image.fromarray(grey[:, ::-1])]
    corpus = [
        _picture("PNG", grey),
        _picture("PNG", colour, "RGBA"),
        _picture("PNG", grey.astype(np.uint16) * 100),
        _picture("PNG", grey, "P"),
        _picture("JPEG", colour),
        _picture("JPEG", colour, progressive=True),
        _picture("GIF", grey, save_all=True, append_images=more),
        _picture("TIFF", grey.astype(np.float32)),
        _picture("TIFF", grey, compression="tiff_lzw", save_all=True, append_images=more),
        _picture("WEBP", colour, save_all=True, append_images=more),
        _picture("BMP", colour),
        _picture("PPM", colour),
    ]

    def load(path: Path) -> object:
        return decode([path], None, 8)

    return Loader("image", "a.png", corpus, load, [_png])


def _png(random: Any, content: bytes) -> bytes:
    if not content.startswith(b"\x89PNG"):
        raise ValueError("another format")
    return mutate.png_file(random, content)


def _groups(folder: Path) -> Loader:
    corpus = [
        b"file,group\na.png,1\nb/c.png,2\n",
        b'file,group\r\n"a.png",x\r\n"b/c.png","y,z"\r\n',
    ]
    return Loader("groups", "g.csv", corpus, lambda path: groups_of(path, ["a.png", "b/c.png"]))


def _about(folder: Path) -> Loader:
    prepare(Source("blobs"), folder / "about")
    corpus = [(folder / "about/about.json").read_bytes()]

    def load(path: Path) -> object:
        found = read_about(path.parent)
        return found.lines(), min(found.counts["train"])

    return Loader("about", "about.json", corpus, load, [mutate.json_file])


SEALED: Sequence[Craft] = [mutate.tensor_file]
ZIPPED: Sequence[Craft] = [mutate.zip_file]
TABLES: Sequence[Craft] = [mutate.parquet_file]
MAKERS: dict[str, Callable[[Path], Loader]] = {
    "config": _config,
    "shard": _shard,
    "partial expert": _partial,
    "distilled": _distilled,
    "submission": _submission,
    "submission metadata": metadata,
    "submitted set": submitted_set,
    "torch": _torch,
    "step size": _rate,
    "buffers": _buffers,
    "npz set": _npz_set,
    "npz arrays": partial(_arrays, suffix=".npz"),
    "safetensors arrays": partial(_arrays, suffix=".safetensors"),
    "tables": _tables,
    "parquet images": _parquet,
    "winner": _winner,
    "checkpoint": _checkpoint,
    "image": _image,
    "groups": _groups,
    "about": _about,
}
